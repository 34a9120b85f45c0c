internal import Synchronization

/// Calls a closure again and again, on a thread of its own, as long as it lives.
package final class Heartbeat: Sendable {
  private static let sliceNanoseconds: UInt64 = 100_000_000

  private final class Flag: Sendable {
    let isSet = Atomic<Bool>(false)
  }

  private let stopped = Flag()

  /// Starts the thread; it calls `body` every so many nanoseconds, and once more at most after this
  /// object is gone.
  package init(nanoseconds: UInt64, _ body: @escaping @Sendable () -> Void) throws(KernelError) {
    let stopped = stopped
    _ = try OSThread(name: "memdump-beat") {
      var next = MonotonicClock.now + nanoseconds
      while !stopped.isSet.load(ordering: .acquiring) {
        MonotonicClock.pause(nanoseconds: Self.sliceNanoseconds)
        if MonotonicClock.now < next { continue }
        next = MonotonicClock.now + nanoseconds
        body()
      }
    }
  }

  deinit { stopped.isSet.store(true, ordering: .releasing) }
}
