internal import Glibc
internal import Images
public import Kernel
public import Predump

/// What `Arrival.run` is to do.
public struct ArrivalOptions: Sendable {
  /// Where the images go and where they come from; a Unix, TCP or TLS address.
  public var receipt: ImageReceipt.Options
  /// Which criu.
  public var criu = CRIUProgram()
  /// Further options for `criu restore`.
  public var arguments: [String] = []
  /// Whether the copy runs before its memory is in place (`RestoreOptions.isLazy`).
  public var isLazy = false
  /// A command of the user's for every `MoveEvent` of the destination.
  public var onEvent: String?
  /// After which that counts as failed (ns).
  public var hookTimeoutNanoseconds: UInt64 = 60_000_000_000
  /// How long to go on listening for the source's question what became of the copy, if the link broke
  /// before it heard (ns).
  public var outcomePatienceNanoseconds: UInt64 = 60_000_000_000

  /// The defaults, into `imagesDirectory`.
  public init(imagesDirectory: String) {
    receipt = ImageReceipt.Options(imagesDirectory: imagesDirectory)
    // What is lost in a power cut is the process itself.
    receipt.sync = false
  }
}

/// What happens meanwhile at the destination.
public enum ArrivalEvent: Sendable {
  /// The source may connect; a TCP port is the real one.
  case listening(Endpoint)
  /// The source is there, and wants to move this process.
  case agreed(pid: Int32)
  /// The link broke in the rounds, and why; the source may come back and go on.
  case broken(String)
  /// A round is stored and checked.
  case round(name: String)
  /// CRIU's images are there; the source holds the process.
  case restoring
  /// The copy is complete and has run no instruction.
  case ready
  /// The copy runs, and the source has not been told yet.
  case restored(RestoreSummary)
  /// The link broke: the source may come back and ask.
  case awaitingQuestion(MoveOutcome)
  /// Something that the user should know.
  case warning(String)
}

/// Takes in a process that `Migrate` moves.
public enum Arrival {
  /// Receives one process and restores it. Blocks until that is over, and all its memory in place.
  ///
  /// - Throws: `MigrationError`; nothing of the process is left running here then, and of its images
  ///   only complete rounds; after `.incomplete`, everything that it can be restored from.
  public static func run(
    _ options: ArrivalOptions, cancellation: Cancellation = Cancellation(),
    onEvent: @escaping (ArrivalEvent) -> Void
  ) throws(MigrationError) -> RestoreSummary {
    do {
      try options.criu.checkPresent()
      let listener: Listener
      do throws(ChannelError) {
        let tls = try TLSContext.reading(options.receipt.tls, isServer: true)
        // One that died left its socket where its successor is to listen.
        listener = try Listener(
          options.receipt.source, tls: tls,
          replacesStale: options.receipt.reconnectNanoseconds > 0)
      } catch { throw ImageError(error) }
      let side = DestinationSide(options, cancellation, onEvent)
      return try side.run(listener)
    } catch {
      let sorted = MigrationError(error)
      if cancellation.isCancelled, case .process(.link) = sorted { throw .process(.interrupted) }
      throw sorted
    }
  }
}
