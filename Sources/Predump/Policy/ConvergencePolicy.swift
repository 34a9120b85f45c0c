/// When to stop going round and freeze. A pure function of samples: it reads no clock.
///
/// Of the systems that were compared (QEMU, cloud-hypervisor, Xen, p.haul) those that think in time
/// stop best; those that count pages alone freeze too long on fast writers. Time comes first here.
public struct ConvergencePolicy: Sendable, Equatable {
  /// The freeze that is asked for (ns).
  public var targetDowntimeNanoseconds: UInt64 = 50_000_000
  /// Live rounds at most.
  public var maxRounds = 12
  /// Time for all live rounds (ns).
  public var maxTimeNanoseconds: UInt64 = 600_000_000_000
  /// So few pages are never worth another round.
  public var thresholdPages: UInt64 = 64
  /// What a round must shrink the dirty set by, in percent; two in a row that do not are a stall.
  public var minShrinkPercent: UInt64 = 10
  /// What to do when going round does not help any more.
  public var onStall: StallAction = .final

  /// The defaults.
  public init() {}

  /// What is known after a live round.
  public struct Sample: Sendable, Equatable {
    /// Live rounds done, the first one included.
    public var rounds: Int
    /// Pages written since they were last scanned, of this and of the rounds before, newest last.
    public var pendingPages: [UInt64]
    /// The freeze that a last round would take now (ns).
    public var estimatedFreezeNanoseconds: UInt64
    /// Time since the dump began (ns).
    public var elapsedNanoseconds: UInt64

    /// Describes the state after a live round.
    public init(
      rounds: Int, pendingPages: [UInt64], estimatedFreezeNanoseconds: UInt64,
      elapsedNanoseconds: UInt64
    ) {
      self.rounds = rounds
      self.pendingPages = pendingPages
      self.estimatedFreezeNanoseconds = estimatedFreezeNanoseconds
      self.elapsedNanoseconds = elapsedNanoseconds
    }
  }

  /// What to do next.
  public func verdict(for sample: Sample) -> Verdict {
    let pending = sample.pendingPages.last ?? 0
    if pending <= thresholdPages { return .converged(.fewPages) }
    if sample.estimatedFreezeNanoseconds <= targetDowntimeNanoseconds {
      return .converged(.withinTargetDowntime)
    }
    if sample.rounds >= maxRounds { return .stalled(.roundLimit) }
    if sample.elapsedNanoseconds >= maxTimeNanoseconds { return .stalled(.timeLimit) }
    if isStalled(sample.pendingPages) { return .stalled(.notShrinking) }
    return .nextRound
  }

  /// One round that shrinks too little may be noise: two in a row are not.
  private func isStalled(_ pending: [UInt64]) -> Bool {
    guard pending.count >= 3 else { return false }
    let last = pending.suffix(3)
    return zip(last, last.dropFirst()).allSatisfy { before, after in
      // In floating point: a percentage of any 64-bit count, without overflow.
      Double(after) > Double(before) * (1 - Double(min(minShrinkPercent, 100)) / 100)
    }
  }
}

/// What the policy wants.
public enum Verdict: Sendable, Equatable {
  /// Another live round.
  case nextRound
  /// The freeze will be as short as asked.
  case converged(ConvergenceReason)
  /// More rounds will not help.
  case stalled(StallReason)
}

/// Why the dirty set is small enough.
public enum ConvergenceReason: String, Sendable {
  /// At or below the threshold of pages.
  case fewPages = "few-pages"
  /// The estimated freeze is within the target downtime.
  case withinTargetDowntime = "within-target-downtime"
  /// Somebody asked for the last round (`Cancellation.requestFinal`).
  case requested
}

/// Why more rounds will not help.
public enum StallReason: String, Sendable, CustomStringConvertible {
  /// `maxRounds` are done.
  case roundLimit = "round-limit"
  /// `maxTimeNanoseconds` are over.
  case timeLimit = "time-limit"
  /// Two rounds in a row left (nearly) as many dirty pages as they found.
  case notShrinking = "not-shrinking"

  public var description: String {
    switch self {
    case .roundLimit: "the limit of rounds is reached"
    case .timeLimit: "the time limit is reached"
    case .notShrinking: "the process writes as fast as it is dumped"
    }
  }
}

/// What to do when more rounds will not help.
public enum StallAction: String, Sendable, CaseIterable {
  /// Freeze all the same, for longer than asked.
  case final
  /// Give up: the process runs on, the rounds are kept.
  case abort
}
