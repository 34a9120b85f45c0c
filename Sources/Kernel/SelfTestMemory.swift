internal import CLinux
internal import SystemPackage

/// A few pages of this process's own between inaccessible ones, for the self-test to be rough with.
///
/// Nothing outside of it is ever mapped over or unmapped: where a part was moved away, the gap is
/// filled again only if no other thread's mapping has got there first.
struct SelfTestMemory: ~Copyable {
  private let reservation: UInt64
  private let reservedBytes: UInt64
  /// The accessible pages.
  let range: PageRange
  /// A gap that this value does not own any more; empty at the end if there is none.
  private var lost: PageRange

  /// Maps `pageCount` pages, the first one at a multiple of `alignment` (bytes).
  init(pageCount: Int, alignment: UInt64 = pageBytes) throws(KernelError) {
    let byteCount = UInt64(pageCount) * pageBytes
    let reservedBytes = byteCount + alignment + 2 * pageBytes
    var address: UnsafeMutableRawPointer?
    _ = try invoke("mmap", on: "memory for the self-test") {
      clinux_map_anonymous(Int(reservedBytes), &address)
    }
    let base = UInt64(UInt(bitPattern: address))
    reservation = base
    self.reservedBytes = reservedBytes
    let start = (base + pageBytes + alignment - 1) / alignment * alignment
    range = PageRange(start: start, end: start + byteCount)
    lost = PageRange(start: base + reservedBytes, end: base + reservedBytes)
    // Keeps the kernel from merging it with what lies beside it. Failure would only blur the test.
    _ = clinux_mprotect(Self.pointer(base), Int(start - base), 0)
    let end = start + byteCount
    _ = clinux_mprotect(Self.pointer(end), Int(base + reservedBytes - end), 0)
  }

  deinit {
    let end = reservation + reservedBytes
    _ = clinux_unmap(Self.pointer(reservation), Int(lost.start - reservation))
    if end > lost.end { _ = clinux_unmap(Self.pointer(lost.end), Int(end - lost.end)) }
  }

  /// The page `index`, or the pages from there on.
  func page(_ index: Int, count: Int = 1) -> PageRange {
    PageRange(start: range.start + UInt64(index) * pageBytes, pageCount: UInt64(count))
  }

  /// Stores to the first byte of page `index`.
  func store(_ value: UInt8, page index: Int) {
    Self.pointer(page(index).start)?.storeBytes(of: value, as: UInt8.self)
  }

  /// Stores to every page.
  func storeAll(_ value: UInt8) {
    for index in 0..<Int(range.pageCount) { store(value, page: index) }
  }

  /// Loads the first byte of page `index`.
  func load(page index: Int) -> UInt8 {
    Self.pointer(page(index).start)?.load(as: UInt8.self) ?? 0
  }

  /// madvise(2). The number is the kernel's MADV_* of asm-generic/mman-common.h.
  func advise(_ pages: PageRange, _ advice: CInt) throws(KernelError) {
    _ = try invoke("madvise(\(advice))", on: "memory of the self-test") {
      clinux_madvise(Self.pointer(pages.start), Int(pages.byteCount), advice)
    }
  }

  /// mprotect(2).
  func setProtection(_ pages: PageRange, readable: Bool, writable: Bool) throws(KernelError) {
    _ = try invoke("mprotect", on: "memory of the self-test") {
      clinux_mprotect(
        Self.pointer(pages.start), Int(pages.byteCount), (readable ? 1 : 0) | (writable ? 2 : 0))
    }
  }

  /// Moves `pages` of this memory over `place`, which is the caller's, and fills the gap with
  /// inaccessible memory.
  mutating func move(_ pages: PageRange, over place: PageRange) throws(KernelError) {
    _ = try invoke("mremap", on: "memory of the self-test") {
      clinux_move_mapping(
        Self.pointer(pages.start), Int(pages.byteCount), Self.pointer(place.start))
    }
    let end = reservation + reservedBytes
    lost = pages
    _ = try invoke("mmap", on: "a gap in the memory of the self-test") {
      clinux_reserve_at(Self.pointer(pages.start), Int(pages.byteCount))
    }
    lost = PageRange(start: end, end: end)
  }

  private static func pointer(_ address: UInt64) -> UnsafeMutableRawPointer? {
    UnsafeMutableRawPointer(bitPattern: UInt(address))
  }
}
