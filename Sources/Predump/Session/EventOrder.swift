internal import Synchronization

/// Delivers events in order while a round is made durable and the next one is copied already: what
/// happens in that one is told after the round before.
final class EventOrder: Sendable {
  private let deliver: @Sendable (PredumpEvent) -> Void
  private let held = Mutex<Held?>(nil)

  private struct Held {
    /// Tells when it was durable (CLOCK_MONOTONIC, ns); nil until then.
    let durableSince: @Sendable () -> UInt64?
    let began: UInt64
    var report: RoundReport
    var waiting: [PredumpEvent] = []

    /// What is to be told now, if it is durable.
    func settled() -> [PredumpEvent]? {
      guard let end = durableSince() else { return nil }
      var report = report
      report.wallNanoseconds = end - began
      return [.roundFinished(report)] + waiting
    }
  }

  init(_ deliver: @escaping @Sendable (PredumpEvent) -> Void) { self.deliver = deliver }

  /// Tells an event, now or in its turn. Of a round's progress nothing is told before its turn.
  func emit(_ event: PredumpEvent) {
    let due = held.withLock { held -> [PredumpEvent] in
      if let settled = held?.settled() {
        held = nil
        return settled + [event]
      }
      if held == nil { return [event] }
      if case .progress = event { return [] }
      held?.waiting.append(event)
      return []
    }
    for event in due { deliver(event) }
  }

  /// A round that began at `began` is told of once it is durable.
  func hold(
    _ report: RoundReport, began: UInt64, until durableSince: @escaping @Sendable () -> UInt64?
  ) {
    held.withLock { $0 = Held(durableSince: durableSince, began: began, report: report) }
  }

  /// The round is durable, or never will be: whatever waits is told.
  func settle() {
    let due = held.withLock { held -> [PredumpEvent] in
      defer { held = nil }
      return held?.settled() ?? held?.waiting ?? []
    }
    for event in due { deliver(event) }
  }
}
