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

  private let jobs = BlockingQueue<Job>()
  private let ends = BlockingQueue<Void>()
  private let helperCount: Int
  // Allocated and freed here. `verdicts` is shared with the helpers during a job, each byte written
  // by one thread; `buffer` is the engine thread's.
  private let verdicts: UnsafeMutablePointer<Bool>
  private let buffer: UnsafeMutableRawBufferPointer
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

    func work(_ buffer: UnsafeMutableRawBufferPointer) {
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

  /// Starts the threads.
  ///
  /// - Parameter processors: how many threads compare, the calling one included.
  init(processors: Int) throws(KernelError) {
    helperCount = max(0, processors - 1)
    verdicts = .allocate(capacity: Int(Self.batchPages))
    let pieceBytes = Self.piecePages * Int(pageBytes)
    buffer = .allocate(byteCount: pieceBytes, alignment: Int(pageBytes))
    let (jobs, ends) = (jobs, ends)
    for _ in 0..<helperCount {
      _ = try OSThread(name: "memdump-compare") {
        // Only memory and open files are worked on here.
        try? ThisThread.keepCapabilities([])
        let buffer = UnsafeMutableRawBufferPointer.allocate(
          byteCount: pieceBytes, alignment: Int(pageBytes))
        defer { buffer.deallocate() }
        while let job = jobs.take() {
          job.work(buffer)
          ends.put(())
        }
      }
    }
  }

  deinit {
    jobs.close()
    verdicts.deallocate()
    buffer.deallocate()
  }

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
    // To wake a thread costs more than a few pieces.
    let helpers = batch.pageCount > 4 * UInt64(Self.piecePages) ? helperCount : 0
    for _ in 0..<helpers { jobs.put(job) }
    job.work(buffer)
    for _ in 0..<helpers { _ = ends.take() }
    counters.add(pages: batch.pageCount, nanoseconds: MonotonicClock.now - began)
  }

  /// What was compared since the last call.
  func takeCounters() -> CopyCounters {
    defer { counters = CopyCounters() }
    return counters
  }
}
