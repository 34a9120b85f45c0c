internal import Synchronization

/// A wish to stop, or to come to the last round, from any thread or signal handler; the dump heeds a
/// wish to stop within a megabyte of work.
public final class Cancellation: Sendable {
  private let requested = Atomic<Bool>(false)
  private let finalRequested = Atomic<Bool>(false)

  /// No wish yet.
  public init() {}

  /// Asks the dump to stop at the next safe point. Async-signal-safe.
  public func cancel() { requested.store(true, ordering: .releasing) }

  /// Whether somebody asked.
  public var isCancelled: Bool { requested.load(ordering: .acquiring) }

  /// Asks for the last round as soon as the live round that is under way is complete.
  public func requestFinal() { finalRequested.store(true, ordering: .releasing) }

  /// Whether somebody asked for the last round.
  public var wantsFinal: Bool { finalRequested.load(ordering: .acquiring) }
}
