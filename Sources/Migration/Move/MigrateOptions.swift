public import Kernel
public import Predump

/// What `Migrate.run` is to do.
public struct MigrateOptions: Sendable {
  /// The rounds: the process, when to freeze, the user's commands. Where they go, how they are stored
  /// and what becomes of the process is not for these options to say.
  public var predump: PredumpOptions
  /// Where the destination listens.
  public var destination: Endpoint
  /// Which criu.
  public var criu = CRIUProgram()
  /// Further options for `criu dump`.
  public var arguments: [String] = []
  /// How `criu dump` leaves out memory that the rounds have.
  public var omission = MemoryOmission.automatic
  /// How pages are sent; nil for what the destination's CRIU reads.
  public var compression: PageCompressionChoice = .asTheDestinationReads
  /// In which directory to make one for what outlives this process.
  public var workDirectory: String = "/var/tmp"
  /// How long to ask for the outcome if the link breaks when the copy was told to run (ns).
  public var outcomePatienceNanoseconds: UInt64 = 60_000_000_000

  /// The defaults, for `pid` to `destination`.
  public init(pid: Int32, destination: Endpoint) {
    predump = PredumpOptions(pid: pid, destination: destination)
    self.destination = destination
  }

  /// How pages are sent.
  public enum PageCompressionChoice: Sendable {
    /// Compressed if the destination's CRIU reads that, plain if not.
    case asTheDestinationReads
    /// As the options of the rounds say; the destination unpacks them if it has to.
    case asToldToPredump
  }
}

/// What happens during a migration, as it happens.
public enum MigrateEvent: Sendable {
  /// The destination will restore the process; whether its CRIU reads LZ4.
  case agreed(readsCompressed: Bool)
  /// Something happens in the rounds.
  case predump(PredumpEvent)
  /// CRIU has dumped the process and holds it; its images are sent.
  case dumped
  /// The copy is there and waits.
  case ready
  /// The copy is to run.
  case committing
  /// The process runs on here.
  case resumed
}

/// How long the process stood still, and what for (ns). The parts follow each other.
public struct DowntimeSplit: Sendable, Equatable {
  /// Stopping all threads.
  public var freezing: UInt64 = 0
  /// Finding and copying the last pages.
  public var copying: UInt64 = 0
  /// Compressing and sending them, until they are stored and checked there.
  public var sendingRound: UInt64 = 0
  /// CRIU's dump of everything else, whose images are sent meanwhile.
  public var criuDump: UInt64 = 0
  /// What is left of sending those images, and what the destination does besides restoring.
  public var transfer: UInt64 = 0
  /// Restoring, there.
  public var restore: UInt64 = 0
  /// From the word that the copy is to run to the word that it does.
  public var commit: UInt64 = 0

  /// All of it.
  public var total: UInt64 {
    freezing + copying + sendingRound + criuDump + transfer + restore + commit
  }
}

/// What a migration came to.
public struct MigrateSummary: Sendable {
  /// The process there.
  public var pid: Int32
  /// How the rounds went.
  public var rounds: PredumpSummary
  /// How CRIU left memory out.
  public var omission: MemoryOmission
  /// How long the process stood still.
  public var downtime: DowntimeSplit
  /// Bytes of CRIU's images.
  public var imageBytes: UInt64
  /// From the first word to the destination to its last (ns).
  public var wallNanoseconds: UInt64
}
