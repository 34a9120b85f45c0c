internal import Synchronization

/// A wish to stop, from any thread or signal handler; the dump heeds it within a megabyte of work.
public final class Cancellation: Sendable {
  private let requested = Atomic<Bool>(false)

  /// No wish yet.
  public init() {}

  /// Asks the dump to stop at the next safe point. Async-signal-safe.
  public func cancel() { requested.store(true, ordering: .releasing) }

  /// Whether somebody asked.
  public var isCancelled: Bool { requested.load(ordering: .acquiring) }
}
