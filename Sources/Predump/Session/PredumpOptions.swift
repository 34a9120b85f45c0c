public import Images
package import Kernel
public import Tracee

/// What `Predump.run` is to do.
public struct PredumpOptions: Sendable {
  /// The process to dump.
  public var pid: Int32
  /// Where the images go: created if absent, refused if not empty.
  public var imagesDirectory: String
  /// How pages are stored.
  public var compression: PageCompression = .lz4(pagesPerBlock: 64, acceleration: 1)
  /// When to stop going round.
  public var policy = ConvergencePolicy()
  /// Whether a frozen round ends the dump; without it the images are not restorable yet.
  public var takesFinalRound = true
  /// What the process is to be after the frozen round.
  public var leave: LeaveState = .running
  /// Threads that compress.
  public var encoders = 2
  /// How long the process may take to come to a stop (ns); when it takes longer it runs on.
  public var freezeTimeoutNanoseconds: UInt64 = 2_000_000_000
  /// Bytes that the frozen round may copy to memory; more goes to the images during the freeze.
  public var freezeMemoryBytes: UInt64 = 512 << 20
  /// Whether images survive a power cut once a round is reported.
  public var sync = true

  /// Where a test lets memdump die.
  package var faults = FaultPlan.none

  /// The defaults, for `pid` into `imagesDirectory`.
  public init(pid: Int32, imagesDirectory: String) {
    self.pid = pid
    self.imagesDirectory = imagesDirectory
  }
}
