/// How far the rounds on a link have come, and how fast. A pure function of what it is told.
struct LinkProgress {
  private struct Commit {
    var round: UInt64
    var beganAt: UInt64
  }

  /// A round that was acknowledged.
  struct Acknowledgement: Equatable {
    var round: UInt64
    /// From its begin, or the acknowledgement of the round before it, to its own.
    var nanoseconds: UInt64
  }

  /// Complete rounds that the receiver has.
  private(set) var roundsAcknowledged: UInt64 = 0
  /// Rounds that are sent.
  private(set) var roundsSent: UInt64 = 0
  /// What was acknowledged and not yet asked for.
  private var acknowledgements: [Acknowledgement] = []
  private var commits: [Commit] = []
  private var beganAt: UInt64 = 0
  private var acknowledgedAt: UInt64 = 0

  /// Nothing was sent.
  init() {}

  /// A connection is made anew, and the receiver has so many rounds.
  init(resumingAfter rounds: UInt64) {
    roundsAcknowledged = rounds
    roundsSent = rounds
  }

  /// Whether every round that was sent is acknowledged.
  var isSettled: Bool { roundsAcknowledged >= roundsSent }

  /// A round begins.
  mutating func begin(now: UInt64) { beganAt = now }

  /// The round is sent.
  mutating func commit(round: UInt64) {
    roundsSent = round
    commits.append(Commit(round: round, beganAt: beganAt))
  }

  /// What was acknowledged since this was asked last.
  mutating func takeAcknowledgements() -> [Acknowledgement] {
    defer { acknowledgements = [] }
    return acknowledgements
  }

  /// The receiver has so many rounds.
  mutating func acknowledge(rounds: UInt64, now: UInt64) {
    guard rounds > roundsAcknowledged else { return }
    roundsAcknowledged = rounds
    for commit in commits where commit.round <= rounds {
      acknowledgements.append(
        Acknowledgement(
          round: commit.round, nanoseconds: now - max(commit.beganAt, acknowledgedAt)))
      acknowledgedAt = now
    }
    commits.removeAll { $0.round <= rounds }
  }
}
