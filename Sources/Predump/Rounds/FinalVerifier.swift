internal import Glibc
internal import Images
internal import Kernel

/// Compares pages that tracking calls unchanged with what the chain holds of them, in the freeze.
///
/// For processes whose memory is written in ways that tracking cannot see. It costs reading and
/// decompressing all that the process holds while it stands still.
struct FinalVerifier: ~Copyable {
  private static let batchPages: UInt64 = 256

  private var image: ComposedImage
  /// Pages that were found to differ.
  private(set) var pagesFound: UInt64 = 0
  // Allocated and freed here; every slice ends before the buffer does.
  private let held: UnsafeMutableRawBufferPointer
  private let stored: UnsafeMutableRawBufferPointer

  /// Opens the chain that lies in the images directory at `path`.
  init(path: String, pid: Int32) throws(ImageError) {
    image = try ComposedImage(ImageChain(path), stream: .process(pid: pid))
    held = .allocate(byteCount: Int(Self.batchPages * pageBytes), alignment: Int(pageBytes))
    stored = .allocate(byteCount: Int(pageBytes), alignment: Int(pageBytes))
  }

  deinit {
    held.deallocate()
    stored.deallocate()
  }

  /// Calls `body` for the pieces of `range`, ascending, and whether the chain holds their bytes.
  mutating func split(
    _ range: PageRange, memory: borrowing ProcessMemory,
    _ body: (PageRange, Bool) throws(CopyFailure) -> Void
  ) throws(RoundFailure) {
    var position = range.start
    while position < range.end {
      let wanted = min((range.end - position) / pageBytes, Self.batchPages)
      let buffer = UnsafeMutableRawBufferPointer(rebasing: held[..<Int(wanted * pageBytes)])
      let result: ProcessMemory.ReadResult
      do throws(KernelError) { result = try memory.readPages(at: position, into: buffer) } catch {
        throw .kernel(error)
      }
      guard case .pages(let count) = result else { throw .copy(.addressSpaceGone) }
      for page in 0..<count {
        let address = position + UInt64(page) * pageBytes
        let isEqual = try holds(address, bytesAt: page * Int(pageBytes))
        if !isEqual { pagesFound += 1 }
        do throws(CopyFailure) {
          try body(PageRange(start: address, pageCount: 1), isEqual)
        } catch { throw .copy(error) }
      }
      position += UInt64(count) * pageBytes
      if count > 0 { continue }
      // It cannot be read, so nothing speaks against what tracking says: that it is unchanged.
      do throws(CopyFailure) {
        try body(PageRange(start: position, pageCount: 1), true)
      } catch { throw .copy(error) }
      position += pageBytes
    }
  }

  private mutating func holds(_ address: UInt64, bytesAt offset: Int) throws(RoundFailure) -> Bool {
    do throws(ImageError) {
      guard try image.read(address, into: stored) else { return false }
    } catch { throw .images(error) }
    guard let left = stored.baseAddress, let right = held.baseAddress else { return false }
    return memcmp(left, right + offset, Int(pageBytes)) == 0
  }
}
