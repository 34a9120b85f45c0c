public import Kernel

/// Who was dumped: enough to notice that a pid now belongs to somebody else.
public struct TargetIdentity: Sendable, Equatable {
  /// The process id in the dumper's pid namespace.
  public var pid: Int32
  /// Clock ticks from boot to the process's start (`/proc/PID/stat` field 22).
  public var startTicks: UInt64
  /// `/proc/sys/kernel/random/boot_id`, without which start ticks mean nothing.
  public var bootID: String
  /// The command name (`/proc/PID/comm`), for people.
  public var command: String

  /// Names a process of this boot.
  public init(pid: Int32, startTicks: UInt64, bootID: String, command: String) {
    self.pid = pid
    self.startTicks = startTicks
    self.bootID = bootID
    self.command = command
  }
}

/// What a VMA is.
public enum VMAKind: UInt32, Sendable, CaseIterable {
  case anonymous = 1
  case heap = 2
  case stack = 3
  case privateFile = 4
  case sharedFile = 5
  case sharedAnonymous = 6
  case memfd = 7
  case sysvSharedMemory = 8
  case hugetlb = 9
  case vdso = 10
  case vvar = 11
  case vsyscall = 12
  case aioRing = 13
  case ioUring = 14
  case device = 15
  case secretMemory = 16
}

/// What a round does with the pages of a VMA.
public enum VMATreatment: UInt32, Sendable, CaseIterable {
  /// Write-protect tracking says which pages changed.
  case tracked = 1
  /// Every page that differs from the mapped file is stored in every round.
  case privatePagesEachRound = 2
  /// Stored whole, in the frozen round only.
  case wholeInFreeze = 3
  /// Stored whole in every round: a few pages that tracking refuses.
  case wholeEachRound = 4
  /// Not stored: the mapped file has the bytes.
  case fromFile = 5
  /// Not stored: the kernel makes it anew.
  case fromKernel = 6
  /// Not stored: nobody but the process may read it. A restore lacks these bytes.
  case unreadable = 7
  /// Each round compares all pages with digests of what the chain holds, and stores those that
  /// differ; the frozen round does so while the process stands still.
  case comparedInFreeze = 8
}

/// A VMA as a round saw it, and what the round did with it.
public struct VMARecord: Sendable, Equatable {
  /// Where it lies.
  public var range: PageRange
  /// Offset in the mapped file or object (bytes).
  public var fileOffset: UInt64
  /// PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4.
  public var protection: UInt32
  /// MAP_* as `mmap` takes them.
  public var mapFlags: UInt32
  /// CRIU's VMA_AREA_* bits (criu: image.h).
  public var status: UInt32
  /// Bit N is set for MADV_N (CRIU `vma_entry.madv`).
  public var adviceBits: UInt64
  /// Which `pagemap-shmem-ID.img` has the object's pages; 0 if none.
  public var sharedObjectID: UInt64
  /// What it is.
  public var kind: VMAKind
  /// What was done with it.
  public var treatment: VMATreatment
  /// The path that `/proc/PID/maps` shows; empty for plain anonymous memory.
  public var path: String
  /// Pages stored in this round.
  public var pagesStored: UInt64
  /// Pages that this round takes from its parent.
  public var pagesFromParent: UInt64

  /// Describes a VMA; the page counts start at 0.
  public init(
    range: PageRange, fileOffset: UInt64, protection: UInt32, mapFlags: UInt32, status: UInt32,
    adviceBits: UInt64, sharedObjectID: UInt64, kind: VMAKind, treatment: VMATreatment,
    path: String
  ) {
    self.range = range
    self.fileOffset = fileOffset
    self.protection = protection
    self.mapFlags = mapFlags
    self.status = status
    self.adviceBits = adviceBits
    self.sharedObjectID = sharedObjectID
    self.kind = kind
    self.treatment = treatment
    self.path = path
    pagesStored = 0
    pagesFromParent = 0
  }
}

/// The address space that a round saw: CRIU's `mm_entry`. All addresses in bytes.
public struct AddressSpace: Sendable, Equatable {
  /// First byte of the program text.
  public var codeStart: UInt64 = 0
  /// Byte after the program text.
  public var codeEnd: UInt64 = 0
  /// First byte of initialised data.
  public var dataStart: UInt64 = 0
  /// Byte after initialised data.
  public var dataEnd: UInt64 = 0
  /// Where the stack began.
  public var stackStart: UInt64 = 0
  /// Where `brk` began.
  public var breakStart: UInt64 = 0
  /// Where `brk` is.
  public var breakEnd: UInt64 = 0
  /// First byte of the argument strings.
  public var argumentsStart: UInt64 = 0
  /// Byte after the argument strings.
  public var argumentsEnd: UInt64 = 0
  /// First byte of the environment strings.
  public var environmentStart: UInt64 = 0
  /// Byte after the environment strings.
  public var environmentEnd: UInt64 = 0
  /// The auxiliary vector, as in `/proc/PID/auxv`.
  public var auxiliaryVector: [UInt64] = []
  /// The VMAs, ascending.
  public var vmas: [VMARecord] = []

  /// An address space without VMAs.
  public init() {}
}

/// Whether a round was taken from the running or from the frozen process.
public enum RoundKind: UInt32, Sendable {
  /// The process ran: consistent only together with a later frozen round.
  case live = 1
  /// The process stood still: the chain up to here is what it held.
  case frozen = 2
}

/// What a round cost. Durations in microseconds, as CRIU's `stats-dump` has them.
public struct RoundStatistics: Sendable, Equatable {
  /// From the request to stop until everything stood still.
  public var freezingMicroseconds: UInt64 = 0
  /// From the first stop until the process ran again.
  public var frozenMicroseconds: UInt64 = 0
  /// Finding out which pages to store.
  public var scanMicroseconds: UInt64 = 0
  /// Copying them out of the process.
  public var copyMicroseconds: UInt64 = 0
  /// The whole round.
  public var wallMicroseconds: UInt64 = 0
  /// Populated pages that the scan looked at.
  public var pagesScanned: UInt64 = 0

  /// All zero.
  public init() {}
}

/// A process that a round holds: the target, or one of its descendants.
public struct RoundMember: Sendable, Equatable {
  /// Who it is.
  public var target: TargetIdentity
  /// Process id of its parent; 0 if that was not asked for.
  public var parent: Int32
  /// Index of the first round that has this address space. A child that was born later, or a process
  /// that called execve, begins anew: all its pages are stored there.
  public var since: Int
  /// Whether it exited or called execve in the midst of the round, which was live then.
  public var isGone = false
  /// The VMAs and what was done with each.
  public var addressSpace: AddressSpace

  /// Describes a process of a round.
  public init(target: TargetIdentity, parent: Int32, since: Int, addressSpace: AddressSpace) {
    self.target = target
    self.parent = parent
    self.since = since
    self.addressSpace = addressSpace
  }
}

/// Everything the engine says about a finished round.
public struct RoundDescription: Sendable {
  /// 1 for the first round.
  public var index: Int
  /// Running or frozen.
  public var kind: RoundKind
  /// Who was dumped: the target, then those of its descendants that were dumped with it.
  public var members: [RoundMember]
  /// Whether descendants are dumped at all.
  public var includesDescendants = false
  /// What it cost.
  public var statistics: RoundStatistics
  /// Microseconds from boot to the start of this round (CRIU `inventory.dump_uptime`).
  public var uptimeMicroseconds: UInt64
  /// Seconds since 1970 at the start of this round.
  public var startedAt: UInt64

  /// Describes a finished round. The target is the first of `members`.
  public init(
    index: Int, kind: RoundKind, members: [RoundMember], statistics: RoundStatistics,
    uptimeMicroseconds: UInt64, startedAt: UInt64
  ) {
    self.index = index
    self.kind = kind
    self.members = members
    self.statistics = statistics
    self.uptimeMicroseconds = uptimeMicroseconds
    self.startedAt = startedAt
  }

  /// Describes a finished round of a process without its descendants.
  public init(
    index: Int, kind: RoundKind, target: TargetIdentity, addressSpace: AddressSpace,
    statistics: RoundStatistics, uptimeMicroseconds: UInt64, startedAt: UInt64
  ) {
    let member = RoundMember(target: target, parent: 0, since: 1, addressSpace: addressSpace)
    self.init(
      index: index, kind: kind, members: [member], statistics: statistics,
      uptimeMicroseconds: uptimeMicroseconds, startedAt: startedAt)
  }
}

/// What a writer counted in a finished round.
public struct RoundTotals: Sendable, Equatable {
  /// Pages whose bytes were stored or found zero in this round.
  public var pagesStored: UInt64 = 0
  /// Of those, pages in all-zero blocks, which take no bytes.
  public var pagesZero: UInt64 = 0
  /// Pages that the round takes from its parent.
  public var pagesFromParent: UInt64 = 0
  /// Bytes in the round's pages files, padding included.
  public var payloadBytes: UInt64 = 0

  /// All zero.
  public init() {}
}

/// How a dump ended, or that it has not.
public enum SessionOutcome: UInt32, Sendable {
  /// The dumper is at work, or died without a word.
  case running = 1
  /// Converged; the last round is frozen.
  case complete = 2
  /// The last round is frozen, but the freeze was longer than asked for.
  case completeOverBudget = 3
  /// Ended after convergence without a frozen round (`--no-final`).
  case preDumpOnly = 4
  /// Did not converge, and was told to give up.
  case notConverged = 5
  /// SIGINT or SIGTERM.
  case interrupted = 6
  /// The process ended or called execve.
  case targetGone = 7
  /// Any other failure.
  case failed = 8

  /// Whether the dump came to its end, and all of it is there.
  public var isComplete: Bool { self == .complete || self == .completeOverBudget }
}
