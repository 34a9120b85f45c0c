internal import Kernel

/// Tells how far a round is, ten times a second at most.
struct ProgressMeter {
  private static let intervalNanoseconds: UInt64 = 100_000_000

  private let round: Int
  private let pagesExpected: UInt64
  private let onEvent: @Sendable (PredumpEvent) -> Void
  private var last = MonotonicClock.now

  init(round: Int, pagesExpected: UInt64, _ onEvent: @escaping @Sendable (PredumpEvent) -> Void) {
    self.round = round
    self.pagesExpected = pagesExpected
    self.onEvent = onEvent
  }

  mutating func report(pagesDone: UInt64) {
    let now = MonotonicClock.now
    guard now - last >= Self.intervalNanoseconds else { return }
    last = now
    onEvent(
      .progress(
        RoundProgress(
          round: round, pagesDone: pagesDone, pagesExpected: max(pagesExpected, pagesDone))))
  }
}
