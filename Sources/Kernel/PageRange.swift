/// Bytes in a page. memdump supports x86-64, whose base page is 4 KiB.
public let pageBytes: UInt64 = 4096

/// A run of whole pages in some address space: `start` up to, not including, `end`, in bytes.
public struct PageRange: Sendable, Hashable {
  /// First byte; a multiple of `pageBytes`.
  public var start: UInt64
  /// Byte after the last one; a multiple of `pageBytes`.
  public var end: UInt64

  /// The pages from `start` up to `end` (bytes).
  public init(start: UInt64, end: UInt64) {
    self.start = start
    self.end = end
  }

  /// `pageCount` pages from `start` (bytes) on.
  public init(start: UInt64, pageCount: UInt64) {
    self.init(start: start, end: start + pageCount * pageBytes)
  }

  /// Every page of any address space.
  package static var everything: PageRange {
    PageRange(start: 0, end: UInt64.max / pageBytes * pageBytes)
  }

  /// Length in bytes.
  public var byteCount: UInt64 { end - start }
  /// Length in pages.
  public var pageCount: UInt64 { (end - start) / pageBytes }
  /// Whether no page is in it.
  public var isEmpty: Bool { end <= start }

  /// Whether the byte at `address` is in it.
  public func contains(_ address: UInt64) -> Bool { start <= address && address < end }

  /// The pages that both ranges hold; empty if there are none.
  public func intersection(_ other: PageRange) -> PageRange {
    let low = max(start, other.start)
    return PageRange(start: low, end: max(low, min(end, other.end)))
  }
}

/// An address as the kernel prints it, with 0x.
public func hexAddress(_ address: UInt64) -> String { "0x" + String(address, radix: 16) }
