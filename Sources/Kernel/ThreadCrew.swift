internal import Synchronization

/// Threads that work on one thing together with the thread that asks them to.
///
/// Used by one thread at a time; not Sendable.
package final class ThreadCrew {
  private let jobs = BlockingQueue<@Sendable () -> Void>()
  private let ends = BlockingQueue<Void>()
  /// How many work at most, the asking thread included.
  package let count: Int

  /// Starts the threads.
  ///
  /// - Parameters:
  ///   - count: how many work, the asking thread included; at least 1.
  ///   - prepare: runs on each thread, once.
  /// - Throws: `KernelError` if a thread cannot be had.
  package init(name: String, count: Int, prepare: @escaping @Sendable () -> Void)
    throws(KernelError)
  {
    self.count = max(1, count)
    let (jobs, ends) = (jobs, ends)
    for _ in 1..<max(2, count) where count > 1 {
      _ = try OSThread(name: name) {
        prepare()
        while let job = jobs.take() {
          job()
          ends.put(())
        }
      }
    }
  }

  deinit { jobs.close() }

  /// Runs `job` on this thread and, unless it `isSmall`, on all others at the same time; returns when
  /// all of them have.
  package func run(isSmall: Bool = false, _ job: @escaping @Sendable () -> Void) {
    // To wake a thread costs more than a little work.
    let helpers = isSmall ? 0 : count - 1
    for _ in 0..<helpers { jobs.put(job) }
    job()
    for _ in 0..<helpers { _ = ends.take() }
  }
}
