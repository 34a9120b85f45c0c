internal import Kernel
internal import Synchronization

/// A shared memory object that is open, for several threads at a time.
final class OpenObject: Sendable {
  let file: File
  init(_ file: consuming File) { self.file = file }
}

/// Compares pages of shared objects with the digests of what the chain holds, on several processors:
/// a freeze waits for it.
///
/// Used by one engine thread at a time; not Sendable.
final class PageComparer {
  /// Pages that are looked at before what was found is acted upon (64 MiB).
  private static let batchPages: UInt64 = 16 * 1024
  /// Pages that a thread reads at once: they stay in its processor's cache until they are digested.
  private static let piecePages = 64

  private let crew: ThreadCrew
  // Allocated and freed here. Shared with the crew during a job, each byte written by one thread.
  private let verdicts: UnsafeMutablePointer<Bool>
  /// Pages compared, and the time that it took.
  private(set) var counters = CopyCounters()

  /// A run of pages to compare; threads take pieces of it until none is left.
  private final class Job: @unchecked Sendable {
    // Sendable: each piece is taken by one thread, which alone writes its verdicts, and the queue
    // orders those before the engine's reading.
    private let object: OpenObject
    private let digests: PageDigests
    private let start: UInt64
    private let pageCount: Int
    private let verdicts: UnsafeMutablePointer<Bool>
    private let next = Atomic<Int>(0)

    init(
      _ object: OpenObject, _ digests: PageDigests, _ range: PageRange,
      _ verdicts: UnsafeMutablePointer<Bool>
    ) {
      self.object = object
      self.digests = digests
      start = range.start
      pageCount = Int(range.pageCount)
      self.verdicts = verdicts
    }

    func work() {
      let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: PageComparer.piecePages * Int(pageBytes), alignment: Int(pageBytes))
      defer { buffer.deallocate() }
      while true {
        let first = next.wrappingAdd(1, ordering: .relaxed).oldValue * PageComparer.piecePages
        if first >= pageCount { return }
        let count = min(PageComparer.piecePages, pageCount - first)
        let bytes = buffer[..<(count * Int(pageBytes))]
        compare(first, count, UnsafeMutableRawBufferPointer(rebasing: bytes))
      }
    }

    private func compare(_ first: Int, _ count: Int, _ bytes: UnsafeMutableRawBufferPointer) {
      let address = start + UInt64(first) * pageBytes
      do throws(KernelError) {
        _ = try SharedObjects.readPages(of: object.file, at: address, into: bytes)
      } catch {
        // Taken for changed: to store it meets the same failure, and reports it.
        (verdicts + first).update(repeating: false, count: count)
        return
      }
      guard let base = bytes.baseAddress else { return }
      for page in 0..<count {
        let offset = page * Int(pageBytes)
        verdicts[first + page] = digests.isNoted(address + UInt64(offset), base + offset)
      }
    }
  }

  /// - Parameter crew: who compares.
  init(_ crew: ThreadCrew) {
    self.crew = crew
    verdicts = .allocate(capacity: Int(Self.batchPages))
  }

  deinit { verdicts.deallocate() }

  /// Calls `body` for the pieces of `range`, ascending, and whether `digests` has their bytes.
  func split<Failure: Error>(
    _ range: PageRange, of object: OpenObject, _ digests: PageDigests,
    _ body: (PageRange, Bool) throws(Failure) -> Void
  ) throws(Failure) {
    var position = range.start
    while position < range.end {
      let left = (range.end - position) / pageBytes
      let batch = PageRange(start: position, pageCount: min(left, Self.batchPages))
      compare(batch, object, digests)
      var first = 0
      for page in 1...Int(batch.pageCount) {
        if page < Int(batch.pageCount), verdicts[page] == verdicts[first] { continue }
        try body(
          PageRange(start: position + UInt64(first) * pageBytes, pageCount: UInt64(page - first)),
          verdicts[first])
        first = page
      }
      position = batch.end
    }
  }

  private func compare(_ batch: PageRange, _ object: OpenObject, _ digests: PageDigests) {
    let began = MonotonicClock.now
    let job = Job(object, digests, batch, verdicts)
    crew.run(isSmall: batch.pageCount <= 4 * UInt64(Self.piecePages)) { job.work() }
    counters.add(pages: batch.pageCount, nanoseconds: MonotonicClock.now - began)
  }

  /// What was compared since the last call.
  func takeCounters() -> CopyCounters {
    defer { counters = CopyCounters() }
    return counters
  }
}
