internal import Kernel

/// What memdump's own record says of a round.
public struct RoundRecord: Sendable, Equatable {
  /// The process id in the file names.
  public internal(set) var pid: Int32 = 0
  /// How pages are stored.
  public internal(set) var compression = PageCompression.none
  /// The parent round's directory name; nil for the first round.
  public internal(set) var parentName: String?
  /// Digest of the parent's own record, as it was when this round began.
  public internal(set) var parentRecord: Digest128?
  /// 1 for the first round.
  public internal(set) var index = 0
  /// Running or frozen.
  public internal(set) var kind = RoundKind.live
  /// Who was dumped.
  public internal(set) var target = TargetIdentity(pid: 0, startTicks: 0, bootID: "", command: "")
  /// Microseconds from boot to the start of this round.
  public internal(set) var uptimeMicroseconds: UInt64 = 0
  /// Seconds since 1970 at the start of this round.
  public internal(set) var startedAt: UInt64 = 0
  /// What the round cost.
  public internal(set) var statistics = RoundStatistics()
  /// The VMAs and what was done with each, ascending.
  public internal(set) var vmas: [VMARecord] = []
  /// What the writer counted.
  public internal(set) var totals = RoundTotals()
  /// Every other file of the round as it was written.
  var files: [FileDigest] = []
  /// Where the first digests of a stream are in the record; the key is the shared object, 0 for the
  /// process.
  var digestOffsets: [UInt64: UInt64] = [:]
  /// Digest of this record's whole file.
  var fileDigest = Digest128(high: 0, low: 0)
}
