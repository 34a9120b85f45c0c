internal import Kernel

/// What memdump's own record says of a round.
public struct RoundRecord: Sendable, Equatable {
  /// The target's process id, which is in the name of the record.
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
  /// Who was dumped: the target, then those of its descendants that were dumped with it.
  public internal(set) var members: [Member] = []
  /// Whether descendants are dumped at all.
  public internal(set) var includesDescendants = false
  /// Microseconds from boot to the start of this round.
  public internal(set) var uptimeMicroseconds: UInt64 = 0
  /// Seconds since 1970 at the start of this round.
  public internal(set) var startedAt: UInt64 = 0
  /// What the round cost.
  public internal(set) var statistics = RoundStatistics()
  /// What the writer counted.
  public internal(set) var totals = RoundTotals()
  /// Every other file of the round as it was written.
  var files: [FileDigest] = []
  /// Where the first digests of a stream are in the record.
  var digestOffsets: [ImageStream: UInt64] = [:]
  /// Digest of this record's whole file.
  var fileDigest = Digest128(high: 0, low: 0)

  /// A process of the round.
  public struct Member: Sendable, Equatable {
    /// Who it is.
    public internal(set) var target: TargetIdentity
    /// Process id of its parent; 0 for the target, whose parent is nobody's business.
    public internal(set) var parent: Int32
    /// Index of the first round that has this address space.
    public internal(set) var since: Int
    /// Whether it exited or called execve in the midst of the round.
    public internal(set) var isGone: Bool
    /// The VMAs and what was done with each, ascending.
    public internal(set) var vmas: [VMARecord] = []
  }

  /// Who was dumped; descendants not counted.
  public var target: TargetIdentity {
    members.first?.target ?? TargetIdentity(pid: 0, startTicks: 0, bootID: "", command: "")
  }

  /// The target's VMAs and what was done with each, ascending.
  public var vmas: [VMARecord] { members.first?.vmas ?? [] }

  /// Whether the record has digests of the stream: of a process that is none of its members it has
  /// none.
  func describes(_ stream: ImageStream) -> Bool {
    switch stream {
    case .process(let pid): members.contains { $0.target.pid == pid }
    case .sharedObject: true
    }
  }
}
