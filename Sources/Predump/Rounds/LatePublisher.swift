internal import Images
internal import Kernel
internal import Synchronization

/// Makes a round durable, and only then gives it its name, on a thread of its own: while the next round
/// is scanned and copied. One at a time; for the engine's thread alone.
final class LatePublisher {
  private let jobs = BlockingQueue<Job>()
  private let results = BlockingQueue<Result<Void, ImageError>>()
  private let end = End()

  /// When the last round was published (CLOCK_MONOTONIC, ns); 0 if it is not, or could not be.
  private final class End: Sendable {
    let nanoseconds = Atomic<UInt64>(0)
  }

  private final class Job: @unchecked Sendable {
    // Sendable: the round is taken out once, by the thread that took the job.
    var round: FinishedRound?
    let plan: RoundPlan
    let entry: ImagesDirectory.Entry

    init(_ round: consuming FinishedRound, _ plan: RoundPlan, _ entry: ImagesDirectory.Entry) {
      self.round = consume round
      self.plan = plan
      self.entry = entry
    }
  }

  /// Starts the thread.
  init() throws(KernelError) {
    let (jobs, results, end) = (jobs, results, end)
    _ = try OSThread(name: "memdump-sync") {
      try? ThisThread.keepCapabilities(.files)
      while let job = jobs.take() {
        guard let round = job.round.take() else { continue }
        do throws(ImageError) {
          try round.publish(job.plan, job.entry)
          end.nanoseconds.store(MonotonicClock.now, ordering: .releasing)
          results.put(.success(()))
        } catch { results.put(.failure(error)) }
      }
    }
  }

  deinit { jobs.close() }

  /// Tells when the round that was begun last was published (CLOCK_MONOTONIC, ns); nil until then. For
  /// any thread.
  var publishedAt: @Sendable () -> UInt64? {
    let end = end
    return {
      let nanoseconds = end.nanoseconds.load(ordering: .acquiring)
      return nanoseconds == 0 ? nil : nanoseconds
    }
  }

  /// Begins to publish a round. `finish` must be called before the next one.
  func begin(
    _ round: consuming FinishedRound, _ plan: RoundPlan, _ entry: ImagesDirectory.Entry
  ) {
    end.nanoseconds.store(0, ordering: .releasing)
    jobs.put(Job(round, plan, entry))
  }

  /// Waits until the round that was begun last is published.
  func finish() throws(ImageError) { try results.take()?.get() }
}
