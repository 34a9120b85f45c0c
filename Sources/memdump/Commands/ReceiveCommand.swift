internal import ArgumentParser
internal import Images
internal import Kernel
internal import Predump

/// `memdump receive`: stores what `memdump predump --to` sends.
struct ReceiveCommand: Subcommand {
  static let configuration = CommandConfiguration(
    commandName: "receive",
    abstract: "Store a dump that memdump predump --to sends, checked round by round.",
    usage: "memdump receive --images-dir DIR [--from SOURCE] [options]",
    discussion: """
      Takes one dump and ends. tcp: is neither encrypted nor authenticated; tls: is both.
      Example:
        memdump receive --images-dir /var/tmp/dump --from unix:/run/memdump.sock
      \(ExitStatus.line([
        .success, .noImages, .damaged, .notRestorable, .outOfSpace, .unusableDirectory,
        .linkBroken, .usage, .interrupted, .terminated,
      ]))
      """)

  @Option(
    name: .customLong("images-dir"),
    help: ArgumentHelp("Where the images go: a new or an empty directory.", valueName: "dir"))
  var imagesDirectory: String

  @Option(
    help: ArgumentHelp(
      "- (standard input, the default), or listen at unix:PATH, tcp: or tls:HOST:PORT.",
      valueName: "source"),
    transform: Destination.parse)
  var from = Endpoint.standard

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The silence that breaks the link (default: 30s).", valueName: "time"),
    transform: DurationValue.parser(1_000_000_000...3_600_000_000_000))
  var linkTimeout = DurationValue(nanoseconds: 30_000_000_000)

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "When the link breaks, wait so long for the sender (with --reconnect, too) to come again; goes "
        + "on in DIR, too.", valueName: "time"),
    transform: DurationValue.parser(1_000_000_000...86_400_000_000_000))
  var reconnect: DurationValue?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Store no more than this (default: what there is room for).",
      valueName: "size"),
    transform: SizeValue.parser(1 << 20...1 << 60, multipleOf: 1))
  var maxSize: SizeValue?

  @Flag(help: "Do not wait for the disk; a power cut may lose images.")
  var noSync = false

  @Flag(name: .shortAndLong, help: "Errors only.")
  var quiet = false

  @OptionGroup var tls: TLSOptions
  @OptionGroup(title: "To restore it, too") var arrive: ArriveOptions
  @OptionGroup var output: OutputOptions

  mutating func validate() throws {
    try arrive.validate(from: from)
    guard !imagesDirectory.isEmpty else {
      throw ValidationError("--images-dir is empty; name a new or an empty directory")
    }
    if reconnect != nil && from == .standard {
      throw ValidationError("--reconnect is for a socket: nobody can connect to a pipe again")
    }
    _ = try tls.credentials(for: from)
  }

  func console() -> Console { output.console }

  func execute(_ console: Console) throws(CommandFailure) -> ExitStatus {
    if arrive.restore { return try restore(options, console) }
    let cancellation = Cancellation()
    let watch = SignalWatch(cancellation, onFirst: {}, onSecond: {})
    do throws(KernelError) { try watch.start() } catch {
      throw CommandFailure(PredumpError.kernel(error))
    }
    var rounds = 0
    do throws(PredumpError) {
      let summary = try ImageReceipt.run(options, cancellation: cancellation) { event in
        if case .round = event { rounds += 1 }
        tell(event, console)
      }
      return try end(summary, console)
    } catch {
      let kept =
        rounds == 0
        ? "no round was complete: nothing is kept"
        : "\(Units.count(UInt64(rounds), "complete round")) kept in \(imagesDirectory)"
      if case .interrupted = error {
        throw CommandFailure(watch.status, kind: "interrupted", "interrupted: \(kept)")
      }
      let failure = CommandFailure(error)
      throw CommandFailure(failure.status, kind: failure.kind, "\(failure.message); \(kept)")
    }
  }

  private var options: ImageReceipt.Options {
    var options = ImageReceipt.Options(imagesDirectory: imagesDirectory)
    options.source = from
    // Validated.
    options.tls = try? tls.credentials(for: from)
    options.linkTimeoutNanoseconds = linkTimeout.nanoseconds
    options.reconnectNanoseconds = reconnect?.nanoseconds ?? 0
    options.byteLimit = maxSize?.bytes ?? .max
    options.sync = !noSync
    return options
  }

  func tell(_ event: ImageReceipt.Event, _ console: Console) {
    switch event {
    case .listening(let endpoint):
      if console.isJSON {
        console.event("listening", ListeningBody(at: endpoint.text))
      } else if !quiet {
        console.print("Listening at \(endpoint.text)")
      }
    case .refused(let reason): console.warn("refused who connected: \(reason)")
    case .broken(let reason): console.warn("\(reason); waiting for the sender to connect again")
    case .connected: break
    case .round(let name):
      if console.isJSON {
        console.event("received", ReceivedBody(name: name))
      } else if !quiet {
        console.print("Received \(name)")
      }
    }
  }

  private func end(_ summary: ImageReceipt.Summary, _ console: Console) throws(PredumpError)
    -> ExitStatus
  {
    let isWhole = summary.outcome?.isComplete ?? false
    if console.isJSON {
      console.event(
        "receipt",
        ReceiptBody(
          imagesDir: imagesDirectory, rounds: summary.rounds.count,
          outcome: summary.outcome?.name))
    } else if !quiet {
      console.print(
        "\(Units.count(UInt64(summary.rounds.count), "round")) in \(imagesDirectory): "
          + (isWhole
            ? "complete. Check the images: memdump restore-check \(imagesDirectory)"
            : "not restorable yet"))
    }
    if summary.rounds.isEmpty { return .noImages }
    return isWhole ? .success : .notRestorable
  }

  private struct ListeningBody: Encodable, Sendable { let at: String }
  private struct ReceivedBody: Encodable, Sendable { let name: String }
  private struct ReceiptBody: Encodable, Sendable {
    let imagesDir: String
    let rounds: Int
    let outcome: String?
  }
}
