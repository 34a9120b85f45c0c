internal import ArgumentParser
internal import Images
internal import Kernel
internal import Migration
internal import Predump

/// What a migration has beyond rounds and CRIU.
struct MoveOptions: ParsableArguments {
  /// How pages are sent, by name.
  enum Format: String, ExpressibleByArgument, CaseIterable { case auto, lz4, none }

  @Option(
    help: ArgumentHelp(
      "lz4, none, or what the criu there reads: auto (default).", valueName: "format"))
  var compress = Format.auto

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Compressing threads (default: one a processor).", valueName: "n"),
    transform: WholeNumber.parser(1...256))
  var threads: Int?

  @Option(help: ArgumentHelp("Run at every step (MEMDUMP_EVENT).", valueName: "command"))
  var onEvent: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("After which a command has failed (default: 1m).", valueName: "time"),
    transform: DurationValue.parser(1_000_000...86_400_000_000_000))
  var hookTimeout = DurationValue(nanoseconds: 60_000_000_000)

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "How long to ask for the outcome if the link breaks last (default: 1m).",
      valueName: "time"),
    transform: DurationValue.parser(1_000_000...86_400_000_000_000))
  var outcomeTimeout = DurationValue(nanoseconds: 60_000_000_000)

  @Option(
    help: ArgumentHelp(
      "How CRIU leaves memory out: auto, lazy, soft-dirty, stream.", valueName: "way"),
    transform: Choice.parser(MemoryOmission.self))
  var omit = MemoryOmission.automatic

  @Option(help: ArgumentHelp("Where criu works, and for notes.", valueName: "dir"))
  var workDir = "/var/tmp"

  @Option(help: ArgumentHelp("Listen there for memdump control.", valueName: "socket"))
  var control: String?

  func validate() throws {
    if onEvent?.isEmpty ?? false { throw ValidationError("the command of --on-event is empty") }
    if workDir.isEmpty { throw ValidationError("--work-dir is empty; name a directory") }
  }

  func apply(to options: inout MigrateOptions) {
    options.predump.compression = compress == .none ? .none : .standard
    options.compression = compress == .auto ? .asTheDestinationReads : .asToldToPredump
    options.predump.encoders = threads ?? min(256, Processors.allowedCount)
    options.predump.hooks.onEvent = onEvent
    options.predump.hooks.timeoutNanoseconds = hookTimeout.nanoseconds
    options.omission = omit
    options.outcomePatienceNanoseconds = outcomeTimeout.nanoseconds
    options.workDirectory = workDir
  }
}

/// What the freeze may take.
struct FreezeLimitOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("How long stopping all threads may take (default: 2s).", valueName: "time"),
    transform: DurationValue.parser(1_000_000...600_000_000_000))
  var freezeTimeout = DurationValue(nanoseconds: 2_000_000_000)

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Memory to copy to during the freeze (default: 512MiB).", valueName: "size"),
    transform: SizeValue.parser(1 << 20...1 << 40, multipleOf: 4096))
  var freezeMemory = SizeValue(bytes: 512 << 20)

  func apply(to options: inout PredumpOptions) {
    options.freezeTimeoutNanoseconds = freezeTimeout.nanoseconds
    options.freezeMemoryBytes = freezeMemory.bytes
  }
}

/// What a receiver that restores has beyond one that stores.
struct ArriveOptions: ParsableArguments {
  @Flag(help: "Restore the process that memdump migrate sends.")
  var restore = false

  @Flag(help: "Let it run before its memory is in place; it is killed if memdump dies meanwhile.")
  var lazy = false

  @OptionGroup var criu: CRIUOptions

  @Option(help: ArgumentHelp("Run at every step (MEMDUMP_EVENT).", valueName: "command"))
  var onEvent: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("After which a command has failed (default: 1m).", valueName: "time"),
    transform: DurationValue.parser(1_000_000...86_400_000_000_000))
  var hookTimeout = DurationValue(nanoseconds: 60_000_000_000)

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "How long to tell the outcome if the link breaks last (default: 1m).", valueName: "time"),
    transform: DurationValue.parser(1_000_000...86_400_000_000_000))
  var outcomeTimeout = DurationValue(nanoseconds: 60_000_000_000)

  func validate(from source: Endpoint) throws {
    if !restore && (!criu.arguments.isEmpty || onEvent != nil || lazy) {
      throw ValidationError("--lazy, --on-event and options for criu are for --restore")
    }
    if restore && source == .standard {
      throw ValidationError("--restore answers: it takes --from unix:PATH, tcp: or tls:HOST:PORT")
    }
    if onEvent?.isEmpty ?? false { throw ValidationError("the command of --on-event is empty") }
  }
}
