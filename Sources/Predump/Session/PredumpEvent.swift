public import Images
internal import Kernel

/// What happens during a dump, as it happens. Delivered on the engine's thread: return soon.
public enum PredumpEvent: Sendable {
  /// The target is tracked from now on.
  case attached(AttachReport)
  /// A descendant of the target came, or went.
  case memberChanged(MemberReport)
  /// A live round goes on. At most ten of these a second.
  case progress(RoundProgress)
  /// A round is on disk.
  case roundFinished(RoundReport)
  /// The freeze begins in a moment, and should take this long.
  case freezePredicted(FreezePrediction)
  /// The freeze is over.
  case thawed(FreezeReport)
  /// Something that the user should know; the dump goes on.
  case warning(String)
}

/// What attaching cost.
public struct AttachReport: Sendable {
  /// Who is dumped.
  public var target: TargetIdentity
  /// Processes: the target, and its descendants if they are dumped with it. What follows is of all.
  public var processCount: Int
  /// How long one thread stood still (ns), in each process.
  public var stoppedNanoseconds: UInt64
  /// Resident memory (bytes); what processes share counts for each.
  public var residentBytes: UInt64
  /// VMAs.
  public var vmaCount: Int
}

/// A descendant of the target that came or went.
public struct MemberReport: Sendable {
  /// What became of it.
  public enum Change: String, Sendable {
    /// It is dumped from this round on.
    case came
    /// It has ended, or is no descendant any more: this round does not have it.
    case left
    /// It called execve: this round begins anew with it.
    case replaced
  }

  /// Who it is.
  public var target: TargetIdentity
  /// Process id of its parent.
  public var parent: Int32
  /// Index of the round.
  public var round: Int
  /// What became of it.
  public var change: Change
}

/// How far a round is.
public struct RoundProgress: Sendable {
  /// 1 for the first round.
  public var round: Int
  /// Pages copied so far.
  public var pagesDone: UInt64
  /// Pages that the round is expected to copy; it may turn out a little different.
  public var pagesExpected: UInt64
}

/// A round that is on disk.
public struct RoundReport: Sendable {
  /// 1 for the first round.
  public var index: Int
  /// Name of its directory.
  public var name: String
  /// Whether the process stood still.
  public var kind: RoundKind
  /// Pages stored, zero ones and those from the parent.
  public var totals: RoundTotals
  /// Pages that were written, or may have been, and hold the bytes that the round before holds: they
  /// were read, and are taken from it.
  public var unchangedPages: UInt64
  /// Pages that are written again and again and were left to the freeze: this round takes them from its
  /// parent, as they were.
  public var waitingPages: UInt64
  /// Bytes of the stored pages before compression.
  public var bytesIn: UInt64
  /// From its begin to its last rename (ns).
  public var wallNanoseconds: UInt64
  /// Processor time for reading from the process, of all threads that read (ns).
  public var copyNanoseconds: UInt64
  /// How long the process stood still for the scan (ns): 0 unless `ScanMode` asked for it.
  public var scanStopNanoseconds: UInt64
  /// Pages written by the process since they were scanned; 0 after the frozen round.
  public var pendingPages: UInt64
  /// Pages that the process wrote a second during the round.
  public var dirtyPagesPerSecond: Double
  /// The freeze that a last round would take now (ns); 0 after the frozen round.
  public var estimatedFreezeNanoseconds: UInt64
  /// What the policy wants next; nil after the frozen round.
  public var verdict: Verdict?

  /// When it began (CLOCK_MONOTONIC, ns).
  var began: UInt64 = 0
}

extension RoundReport {
  /// What is known once its pages are copied.
  init(
    index: Int, name: String, kind: RoundKind, waitingPages: UInt64, unchangedPages: UInt64,
    copyNanoseconds: UInt64, scanStopNanoseconds: UInt64
  ) {
    self.init(
      index: index, name: name, kind: kind, totals: RoundTotals(), unchangedPages: unchangedPages,
      waitingPages: waitingPages, bytesIn: 0, wallNanoseconds: 0, copyNanoseconds: copyNanoseconds,
      scanStopNanoseconds: scanStopNanoseconds, pendingPages: 0, dirtyPagesPerSecond: 0,
      estimatedFreezeNanoseconds: 0, verdict: nil)
  }

  /// Takes over what was written.
  mutating func account(for totals: RoundTotals) {
    self.totals = totals
    bytesIn = totals.pagesStored * pageBytes
  }

  /// It took until `now` (CLOCK_MONOTONIC, ns).
  mutating func end(at now: UInt64) { wallNanoseconds = now - began }
}

/// A freeze that is about to begin.
public struct FreezePrediction: Sendable {
  /// How long it should take (ns).
  public var nanoseconds: UInt64
  /// Pages that it should copy.
  public var pages: UInt64
  /// Why the live rounds ended.
  public var verdict: Verdict
}

/// A freeze that is over.
public struct FreezeReport: Sendable {
  /// From the first thread asked to stop to the last one let go (ns).
  public var frozenNanoseconds: UInt64
  /// Of that, until all threads stood still (ns).
  public var freezingNanoseconds: UInt64
  /// Of that, finding and copying pages (ns).
  public var copyNanoseconds: UInt64
  /// How long it was predicted to take (ns).
  public var predictedNanoseconds: UInt64
  /// Pages copied.
  public var pages: UInt64
  /// Pages of shared memory that were compared with what the chain holds.
  public var pagesCompared: UInt64
  /// Pages that tracking called unchanged and the verification found otherwise; nil without one.
  public var pagesFoundByVerification: UInt64?
  /// Threads stopped.
  public var threadCount: Int
  /// Requests of io_uring that were under way: what they write after the freeze is in no image.
  public var requestsInFlight: UInt32
  /// Processes stopped.
  public var processCount: Int
  /// Of that, waiting for the user's commands (ns); nil without any. It does not count against the
  /// target downtime.
  public var commandNanoseconds: UInt64?

  /// What memdump itself took of the freeze (ns).
  public var ownNanoseconds: UInt64 {
    frozenNanoseconds - min(frozenNanoseconds, commandNanoseconds ?? 0)
  }
}

/// How a dump ended.
public struct PredumpSummary: Sendable {
  /// How the session is marked.
  public var outcome: SessionOutcome
  /// Every round.
  public var rounds: [RoundReport]
  /// The freeze, if there was one.
  public var freeze: FreezeReport?
  /// Bytes of memory that were stored and are not what the newest round is made of: they were stored
  /// anew later, or are gone.
  public var bytesWrittenAgain: UInt64 {
    guard let newest = rounds.last?.totals else { return 0 }
    let stored = rounds.reduce(0) { $0 + $1.totals.pagesStored }
    let unique = newest.pagesStored + newest.pagesFromParent
    return (stored - min(stored, unique)) * pageBytes
  }
  /// From attaching to the end (ns).
  public var wallNanoseconds: UInt64
  /// The most memory that this program itself ever had resident (bytes); 0 if it cannot tell.
  public var peakResidentBytes: UInt64
  /// What the dump cost the target.
  public var slowdown: Slowdown
  /// Page faults of the target during the dump that needed no disk, its own and those that tracking
  /// caused (one for each page that it wrote after a round); nil if the target is gone.
  public var targetMinorFaults: UInt64?
  /// What became of the target's huge pages; nil if the target is gone.
  public var hugePages: HugePageReport?
}

/// What a dump cost the target, and its descendants if they were dumped with it: in sums over all.
/// What it lost to busy processors and disks is not in it.
public struct Slowdown: Sendable {
  /// How long threads were stopped: one for attaching, all for scans (`ScanMode`) and in the freeze,
  /// with the time of commands in it (ns). Of a process that did not run on, up to the end of the
  /// copy and of commands.
  public var stoppedNanoseconds: UInt64
  /// Pages that were found written of those that a round had protected: one page fault each.
  public var firstWrites: UInt64
  /// What such a fault took memdump in memory of its own right after the dump (ns): measured; nil if
  /// that failed.
  public var nanosecondsPerFirstWrite: UInt64?

  /// An estimate of what the threads of the target spent in those faults (ns).
  public var firstWriteNanoseconds: UInt64? {
    nanosecondsPerFirstWrite.map { $0.multipliedReportingOverflow(by: firstWrites).partialValue }
  }
}
