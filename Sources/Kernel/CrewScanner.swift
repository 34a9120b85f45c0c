internal import Synchronization

/// Looks with several threads for what is not as it was when it was protected, in memory that stands
/// still, or to find out how long that takes.
///
/// For one thread at a time; not Sendable.
package final class CrewScanner {
  /// A part of one VMA, which one thread scans.
  package struct Piece: Sendable {
    package var range: PageRange
    /// Whether it is asked first, in the short way, if anything was written in it.
    package var asksIfStill: Bool

    package init(range: PageRange, asksIfStill: Bool) {
      self.range = range
      self.asksIfStill = asksIfStill
    }
  }

  /// What was found in a piece.
  package struct Scanned {
    /// What is not settled (`PagemapScanner.Filter.unsettled`), ascending.
    package let regions: ArraySlice<PageRegion>
    /// Up to where pages were looked at.
    package let end: UInt64
    /// Whether nothing was written in it.
    package let isStill: Bool
  }

  /// What a scan cost.
  package struct Cost: Sendable {
    /// From begin to end (ns).
    package var wallNanoseconds: UInt64 = 0
    /// What it would take again, now that it is known which pieces are still (ns).
    package var expectedNanoseconds: UInt64 = 0
  }

  /// So many pieces are not worth waking another thread.
  private static let piecesOfOneThread = 4
  /// What a second thread adds to the first one's speed (measured), and so each one up to the fourth.
  private static let perFurtherThread = 0.8

  private let crew: ThreadCrew
  private let workers: [Worker]
  private var job: Job?
  /// Whether pieces may be asked if they are still.
  package let hasShortWay: Bool

  /// - Parameter vectorCount: as of `PagemapScanner`.
  package init(
    _ crew: ThreadCrew, vectorCount: Int = PagemapScanner.defaultVectorCount,
    faults: EngineFaultPlan = EngineFaultPlan()
  ) {
    self.crew = crew
    workers = (0..<crew.count).map { _ in Worker(vectorCount, faults) }
    hasShortWay = ShortWay.isSafe()
  }

  /// Scans `pieces` of a process.
  ///
  /// - Returns: what it cost; what was found is asked for with `scanned`.
  package func scan(_ pieces: [Piece], of pagemap: Pagemap) throws(KernelError) -> Cost {
    let began = MonotonicClock.now
    let job = Job(pieces, pagemap, workers)
    let isSmall = pieces.count <= Self.piecesOfOneThread
    crew.run(isSmall: isSmall) { job.work() }
    self.job = job
    try job.finish()
    let threads = isSmall ? 1 : Double(min(crew.count, 4))
    var cost = Cost()
    cost.expectedNanoseconds = UInt64(
      job.expectedNanoseconds / (1 + Self.perFurtherThread * (threads - 1)))
    cost.wallNanoseconds = MonotonicClock.now - began
    return cost
  }

  /// What the last scan found in its piece `index`.
  package func scanned(_ index: Int) -> Scanned {
    guard let job else { preconditionFailure("nothing was scanned yet") }
    let result = job.results[index]
    return Scanned(
      regions: workers[result.worker].regions[result.regions], end: result.end,
      isStill: result.isStill)
  }

  /// Pieces are taken until none is left.
  private final class Job: @unchecked Sendable {
    // Sendable: each piece is taken by one thread, which alone writes its result and its worker, and
    // the crew's queue orders that before the reading.
    private let pieces: [Piece]
    private let pagemap: Pagemap
    private let workers: [Worker]
    let results: UnsafeMutablePointer<Result>
    private let nextPiece = Atomic<Int>(0)
    private let nextWorker = Atomic<Int>(0)
    private let failure = Mutex<KernelError?>(nil)

    init(_ pieces: [Piece], _ pagemap: Pagemap, _ workers: [Worker]) {
      self.pieces = pieces
      self.pagemap = pagemap
      self.workers = workers
      results = .allocate(capacity: pieces.count)
      results.initialize(repeating: Result(), count: pieces.count)
      for worker in workers { worker.reset() }
    }

    deinit { results.deallocate() }

    func work() {
      let number = nextWorker.wrappingAdd(1, ordering: .relaxed).oldValue
      let worker = workers[number]
      let scanner = worker.scanner(of: pagemap)
      let began = ThisThread.processorNanoseconds
      while true {
        let index = nextPiece.wrappingAdd(1, ordering: .relaxed).oldValue
        if index >= pieces.count { break }
        do throws(KernelError) {
          results[index] = try worker.scan(pieces[index], scanner)
          results[index].worker = number
        } catch {
          failure.withLock { $0 = $0 ?? error }
          break
        }
      }
      worker.processorNanoseconds = ThisThread.processorNanoseconds - began
    }

    func finish() throws(KernelError) {
      if let failure = failure.withLock({ $0 }) { throw failure }
    }

    /// Processor time of all threads (ns), without what need not be asked again.
    var expectedNanoseconds: Double {
      workers.reduce(0) { sum, worker in
        let (all, vain) = (Double(max(worker.nanoseconds, 1)), Double(worker.vainNanoseconds))
        return sum + Double(worker.processorNanoseconds) * (all - vain) / all
      }
    }
  }

  private struct Result {
    var worker = 0
    var regions = 0..<0
    var end: UInt64 = 0
    var isStill = false
  }

  /// What a thread works with.
  private final class Worker: @unchecked Sendable {
    // Sendable: see `Job`.
    private let vector: ScanVector
    private let faults: EngineFaultPlan
    private var merger = RegionMerger()
    private(set) var regions: [PageRegion] = []
    /// For scanning, and of that for asking pieces if they are still that were not (ns).
    private(set) var nanoseconds: UInt64 = 0
    private(set) var vainNanoseconds: UInt64 = 0
    var processorNanoseconds: UInt64 = 0

    init(_ vectorCount: Int, _ faults: EngineFaultPlan) {
      vector = ScanVector(count: vectorCount)
      self.faults = faults
      regions.reserveCapacity(16 * 1024)
    }

    func reset() {
      merger.reset()
      regions.removeAll(keepingCapacity: true)
      (nanoseconds, vainNanoseconds, processorNanoseconds) = (0, 0, 0)
    }

    func scanner(of pagemap: Pagemap) -> PagemapScanner {
      PagemapScanner(pagemap, vector: vector, faults: faults)
    }

    func scan(_ piece: Piece, _ scanner: borrowing PagemapScanner) throws(KernelError) -> Result {
      let began = MonotonicClock.now
      defer { nanoseconds += MonotonicClock.now - began }
      if piece.asksIfStill {
        if try isStill(piece, scanner) { return Result(end: piece.range.end, isStill: true) }
        vainNanoseconds += MonotonicClock.now - began
      }
      let first = regions.count
      do throws(ScanFailure<Never>) {
        let end = try scanner.scan(
          piece.range, filter: .unsettled, protect: false, merger: &merger
        ) { region in regions.append(region) }
        return Result(regions: first..<regions.count, end: end)
      } catch {
        guard case .kernel(let cause) = error else { return Result() }
        throw cause
      }
    }

    private func isStill(_ piece: Piece, _ scanner: borrowing PagemapScanner)
      throws(KernelError) -> Bool
    {
      if faults.has(.trustStillness) { return true }
      return try scanner.isStill(piece.range)
    }
  }
}
