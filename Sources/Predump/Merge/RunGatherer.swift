internal import Images
internal import Kernel

/// Joins runs that touch, whichever rounds they come from, so that blocks are as long as they may
/// be: a chain's runs are short where its rounds take turns.
struct RunGatherer: ~Copyable {
  private static let smallestPages = 256

  private var copier: RoundCopier
  private var start: UInt64 = 0
  private var flags: PagemapFlags = []
  private var filled = 0
  // Allocated and freed here only; `filled` stays at or below its length.
  private let buffer: UnsafeMutableRawBufferPointer

  /// - Parameter blockPages: pages in a block of what is written.
  init(into copier: RoundCopier, blockPages: Int) {
    self.copier = copier
    let blocks = max(1, Self.smallestPages / blockPages)
    buffer = .allocate(byteCount: blocks * blockPages * Int(pageBytes), alignment: Int(pageBytes))
  }

  deinit { buffer.deallocate() }

  /// Takes a run; addresses ascend from call to call.
  mutating func add(_ range: PageRange, _ flags: PagemapFlags, _ bytes: UnsafeRawBufferPointer)
    throws(CopyFailure)
  {
    if range.start != start + UInt64(filled) || flags != self.flags { try flush() }
    self.flags = flags
    var done = 0
    while done < bytes.count {
      if filled == 0 { start = range.start + UInt64(done) }
      let count = min(bytes.count - done, buffer.count - filled)
      UnsafeMutableRawBufferPointer(rebasing: buffer[filled..<(filled + count)])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[done..<(done + count)]))
      filled += count
      done += count
      if filled == buffer.count { try flush() }
    }
  }

  /// Sends what is left on its way.
  mutating func finish() throws(CopyFailure) {
    try flush()
    copier.flush()
  }

  private mutating func flush() throws(CopyFailure) {
    if filled == 0 { return }
    let range = PageRange(start: start, end: start + UInt64(filled))
    let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<filled])
    _ = try copier.store(range, flags: flags) { (address, target) in
      let offset = Int(address - range.start)
      target.copyMemory(
        from: UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + target.count)]))
      return .pages(target.count / Int(pageBytes))
    }
    // The next run starts anew, also where it touches this one: blocks end here in any case.
    start = range.end
    filled = 0
  }
}
