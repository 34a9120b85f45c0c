import Predump
import Testing

struct ConvergencePolicyTests {
  /// A row of the table: what is known, and what follows.
  struct Row: Sendable, CustomTestStringConvertible {
    var name: String
    var rounds = 2
    var pending: [UInt64] = [100_000, 50_000]
    var freeze: UInt64 = 60_000_000
    var elapsed: UInt64 = 1_000_000_000
    var verdict: Verdict

    var testDescription: String { name }
  }

  private static let rows = [
    Row(name: "shrinking", verdict: .nextRound),
    Row(name: "no sample yet", rounds: 0, pending: [], verdict: .converged(.fewPages)),
    Row(name: "nothing pending", pending: [9_000, 0], verdict: .converged(.fewPages)),
    Row(name: "at the threshold", pending: [9_000, 64], verdict: .converged(.fewPages)),
    Row(name: "above the threshold", pending: [9_000, 65], verdict: .nextRound),
    Row(name: "freeze as asked", freeze: 50_000_000, verdict: .converged(.withinTargetDowntime)),
    Row(name: "freeze a little longer", freeze: 50_000_001, verdict: .nextRound),
    Row(name: "no time at all", freeze: 0, verdict: .converged(.withinTargetDowntime)),
    Row(name: "endless freeze", freeze: .max, verdict: .nextRound),
    Row(name: "last round", rounds: 12, verdict: .stalled(.roundLimit)),
    Row(name: "before the last round", rounds: 11, verdict: .nextRound),
    Row(name: "beyond the last round", rounds: .max, verdict: .stalled(.roundLimit)),
    Row(name: "time over", elapsed: 600_000_000_000, verdict: .stalled(.timeLimit)),
    Row(name: "time nearly over", elapsed: 599_999_999_999, verdict: .nextRound),
    Row(name: "time far over", elapsed: .max, verdict: .stalled(.timeLimit)),
    Row(
      name: "converged in the last round", rounds: 12, freeze: 1, elapsed: .max,
      verdict: .converged(.withinTargetDowntime)),
    Row(name: "one bad round", pending: [10_000, 10_000], verdict: .nextRound),
    Row(
      name: "a bad round after a good one", pending: [20_000, 10_000, 9_999], verdict: .nextRound),
    Row(
      name: "two bad rounds", pending: [10_000, 9_500, 9_000], verdict: .stalled(.notShrinking)),
    Row(
      name: "two growing rounds", pending: [1_000, 2_000, 4_000], verdict: .stalled(.notShrinking)),
    Row(name: "exactly ten percent twice", pending: [10_000, 9_000, 8_100], verdict: .nextRound),
    Row(
      name: "bad rounds long ago", pending: [10_000, 10_000, 10_000, 5_000, 2_000],
      verdict: .nextRound),
    Row(
      name: "two bad rounds after good ones", pending: [90_000, 20_000, 20_000, 20_000],
      verdict: .stalled(.notShrinking)),
    Row(
      name: "counts as large as they get", pending: [.max, .max, .max],
      verdict: .stalled(.notShrinking)),
    Row(
      name: "a fall from the largest count", pending: [.max, .max / 2, .max / 4],
      verdict: .nextRound),
  ]

  @Test("the defaults' verdicts", arguments: rows)
  func verdicts(row: Row) {
    let sample = ConvergencePolicy.Sample(
      rounds: row.rounds, pendingPages: row.pending, estimatedFreezeNanoseconds: row.freeze,
      elapsedNanoseconds: row.elapsed)
    #expect(ConvergencePolicy().verdict(for: sample) == row.verdict)
  }

  @Test(
    "a round must shrink the dirty set by what was asked",
    arguments: [
      // per cent, before, between, after, stalled
      (0, 1_000, 1_000, 1_000, false), (0, 1_000, 1_001, 1_002, true),
      (50, 1_000, 501, 251, true), (50, 1_000, 500, 250, false),
      (100, 1_000, 70, 66, true), (UInt64.max, 1_000, 70, 66, true),
    ] as [(UInt64, UInt64, UInt64, UInt64, Bool)])
  func shrinking(percent: UInt64, before: UInt64, between: UInt64, after: UInt64, stalled: Bool) {
    var policy = ConvergencePolicy()
    policy.minShrinkPercent = percent
    let verdict = policy.verdict(
      for: .init(
        rounds: 3, pendingPages: [before, between, after], estimatedFreezeNanoseconds: .max,
        elapsedNanoseconds: 0))
    #expect(verdict == (stalled ? .stalled(.notShrinking) : .nextRound))
  }

  @Test("a limit of no rounds and no time ends with the first")
  func noLimits() {
    var policy = ConvergencePolicy()
    policy.maxRounds = 0
    policy.thresholdPages = 0
    policy.targetDowntimeNanoseconds = 0
    let sample = ConvergencePolicy.Sample(
      rounds: 1, pendingPages: [1], estimatedFreezeNanoseconds: 1, elapsedNanoseconds: 0)
    #expect(policy.verdict(for: sample) == .stalled(.roundLimit))
    policy.maxRounds = 12
    policy.maxTimeNanoseconds = 0
    #expect(policy.verdict(for: sample) == .stalled(.timeLimit))
  }
}
