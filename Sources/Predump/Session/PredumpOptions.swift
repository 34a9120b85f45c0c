public import Images
public import Kernel
public import Tracee

/// What `Predump.run` is to do.
public struct PredumpOptions: Sendable {
  /// The process to dump.
  public var pid: Int32
  /// Whether the processes that descend from it are dumped with it, as one consistent set.
  public var includesDescendants = false
  /// Where the images go: created if absent, refused if not empty. Nil if they are only sent.
  public var imagesDirectory: String?
  /// Where the images are sent, to an `ImageReceipt`; nil if they are only stored. The process must
  /// then not be left killed: the link may break after the freeze.
  public var destination: Endpoint?
  /// Who this side is to a destination that is secured by TLS, and whom it believes.
  public var tls: TLSCredentials?
  /// How long the receiver may be silent before the link counts as broken (ns).
  public var linkTimeoutNanoseconds: UInt64 = 30_000_000_000
  /// How long to try to reach the receiver again after the link broke (ns); 0 ends the dump then. For
  /// a process alone whose images are not stored here, too, and without `hooks.onFrozen`.
  public var reconnectNanoseconds: UInt64 = 0
  /// How pages are stored.
  public var compression: PageCompression = .standard
  /// When to stop going round.
  public var policy = ConvergencePolicy()
  /// What to do when the process calls execve, which gives it another address space.
  public var onExec = ExecAction.abort
  /// Whether a frozen round ends the dump; without it the images are not restorable yet.
  public var takesFinalRound = true
  /// What the process is to be after the frozen round.
  public var leave: LeaveState = .running
  /// Threads that compress.
  public var encoders = 2
  /// Memory for pages on their way to the images (bytes); nil for a little more than keeps the encoders
  /// busy. Less than `leastPipelineMemory(_:encoders:)` is not heeded.
  public var pipelineMemoryBytes: UInt64?
  /// How long the process may take to come to a stop (ns); when it takes longer it runs on.
  public var freezeTimeoutNanoseconds: UInt64 = 2_000_000_000
  /// Bytes that the frozen round may copy to memory; more goes to the images during the freeze.
  public var freezeMemoryBytes: UInt64 = 512 << 20
  /// Whether the process is stopped for the time of a round's scan.
  public var scan: ScanMode = .auto
  /// Whether the freeze also compares, byte for byte, all pages that tracking calls unchanged: for
  /// processes whose memory is written in ways that the kernel does not tell. A long freeze.
  public var verifiesFinal = false
  /// Bytes a second that live rounds read from the process at most; 0 is without limit.
  public var bytesPerSecondLimit: UInt64 = 0
  /// How long to leave the process alone between two live rounds (ns).
  public var pauseBetweenRoundsNanoseconds: UInt64 = 0
  /// Commands to run meanwhile.
  public var hooks = HookOptions()
  /// How memdump's threads stand against everybody else's.
  public var gentleness = Gentleness()
  /// How long to put the target's huge pages together again after the dump (ns); nil: not at all.
  public var restoreHugePagesNanoseconds: UInt64?
  /// Whether images survive a power cut once a round is reported.
  public var sync = true

  /// What the link depends on, in a migration.
  package private(set) var companion: (any LinkCompanion)?
  /// For tests.
  package var tuning = EngineTuning()
  /// Where a test lets memdump die.
  package var faults = FaultPlan.none

  /// The least that `pipelineMemoryBytes` can be (bytes): buffers for each encoder and two others.
  public static func leastPipelineMemory(_ compression: PageCompression, encoders: Int) -> UInt64 {
    ChunkPipeline.leastMemory(compression: compression, encoders: encoders)
  }

  /// The defaults, for `pid` into `imagesDirectory`.
  public init(pid: Int32, imagesDirectory: String) {
    self.pid = pid
    self.imagesDirectory = imagesDirectory
  }

  /// Makes this the first part of a migration: the process is left stopped, for others to go on with.
  package mutating func leadToMove(to destination: Endpoint, with companion: any LinkCompanion) {
    self.destination = destination
    self.companion = companion
    takesFinalRound = true
    leave = .stopped
    hooks.omitted = [.thawed, .complete, .failed]
  }

  /// The defaults, for `pid` over a link to `destination`; nothing is stored here.
  public init(pid: Int32, destination: Endpoint) {
    self.pid = pid
    self.destination = destination
  }
}

/// What becomes of a dump whose process calls execve.
public enum ExecAction: String, Sendable, CaseIterable {
  /// It ends.
  case abort
  /// It starts anew: the next round stores all of the new address space, and takes nothing from the
  /// rounds before.
  case restart
}

/// When a round's scan is made.
public enum ScanMode: String, Sendable, CaseIterable {
  /// While the process runs, unless there are signs of writes that such a scan can miss: direct
  /// I/O, aio or io_uring.
  case auto
  /// While the process runs, always.
  case live
  /// While all threads are stopped for the scan alone, always; copying is live.
  case stopped
}

/// What tests alter inside the engine.
package struct EngineTuning: Sendable {
  /// Regions that a scan asks for in one call.
  package var vectorCount = PagemapScanner.defaultVectorCount
  /// How the scan of a freeze is shared out.
  package var pieceLimits = PieceLimits()
  /// Pages that may wait for the freeze; nil: as many as fit into half of it.
  package var hotPageLimit: UInt64?
  /// How the engine is broken on purpose, if it is.
  package var faults = EngineFaultPlan()
}
