/// Collects findings: counts all, keeps the first few of each kind.
struct FindingLog {
  /// Findings of one kind and severity that are kept.
  static let keptLimit = 4

  private(set) var findings: [Finding] = []
  private(set) var counts: [DamageKind: UInt64] = [:]
  private(set) var damageCount: UInt64 = 0
  /// Rounds with damage.
  private(set) var damagedRounds: Set<String> = []
  /// The round that is being checked.
  var round: String?

  /// Notes damage.
  mutating func damage(_ error: ImageError) { add(error, .damage) }

  /// Notes something that is no damage.
  mutating func notice(_ error: ImageError) { add(error, .notice) }

  /// Runs `body` and notes what it throws as damage. Nil if it threw.
  mutating func attempt<Value: ~Copyable>(
    _ body: (inout FindingLog) throws(ImageError) -> Value
  ) -> Value? {
    do throws(ImageError) {
      return try body(&self)
    } catch {
      damage(error)
      return nil
    }
  }

  private mutating func add(_ error: ImageError, _ severity: Finding.Severity) {
    counts[error.kind, default: 0] += 1
    if severity == .damage {
      damageCount += 1
      if let round { damagedRounds.insert(round) }
    }
    let kept = findings.count { $0.kind == error.kind && $0.severity == severity }
    if kept < Self.keptLimit {
      findings.append(Finding(error, severity: severity, round: round))
    }
  }
}
