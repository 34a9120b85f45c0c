internal import ArgumentParser
internal import Images
internal import Kernel
internal import Predump
internal import Tracee

/// What is dumped, and where to.
struct TargetOptions: ParsableArguments {
  @Option(
    parsing: .unconditional, help: ArgumentHelp("The process to dump.", valueName: "n"),
    transform: WholeNumber.parser(1...Int32.max))
  var pid: Int32

  @Flag(help: "Dump its descendants with it, as one consistent set.")
  var tree = false

  @Option(
    name: .customLong("images-dir"),
    help: ArgumentHelp("Where the images go: a new or an empty directory.", valueName: "dir"))
  var imagesDirectory: String?

  @Option(
    help: ArgumentHelp(
      "Send to: -, unix:PATH, tcp:HOST:PORT, tls:HOST:PORT.", valueName: "dest"),
    transform: Destination.parse)
  var to: Endpoint?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The silence that breaks the link (default: 30s).", valueName: "time"),
    transform: DurationValue.parser(1_000_000_000...3_600_000_000_000))
  var linkTimeout = DurationValue(nanoseconds: 30_000_000_000)

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "If the link breaks, seek the receiver again so long.", valueName: "time"),
    transform: DurationValue.parser(1_000_000_000...86_400_000_000_000))
  var reconnect: DurationValue?

  func validate() throws {
    if reconnect != nil {
      guard to != nil, to != .standard, imagesDirectory == nil, !tree else {
        throw ValidationError(
          "--reconnect is for one process (no --tree) that is sent to a socket, and not stored here "
            + "(no --images-dir)")
      }
    }
    if imagesDirectory?.isEmpty ?? false {
      throw ValidationError("--images-dir is empty; name a new or an empty directory")
    }
    if imagesDirectory == nil && to == nil {
      throw ValidationError(
        "Missing expected argument '--images-dir <dir>' (or --to <dest> to send the images)")
    }
  }

  /// Where the images are, as people would say it.
  var place: String {
    imagesDirectory ?? (to == .standard ? "the receiver's directory" : to?.text) ?? ""
  }
}

/// When to stop going round.
struct ConvergenceOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The freeze that is acceptable (default: 50ms).", valueName: "time"),
    transform: DurationValue.parser(1_000...60_000_000_000))
  var targetDowntime = DurationValue(nanoseconds: 50_000_000)

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Live rounds at most (default: 12).", valueName: "n"),
    transform: WholeNumber.parser(1...1000))
  var maxRounds = 12

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Time for the live rounds (default: 10m).", valueName: "time"),
    transform: DurationValue.parser(1_000_000...86_400_000_000_000))
  var maxTime = DurationValue(nanoseconds: 600_000_000_000)

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "So few dirty pages end the rounds (default: 64).", valueName: "n"),
    transform: WholeNumber.parser(0...1_000_000_000))
  var thresholdPages: UInt64 = 64

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "To shrink it by less, twice, is a stall (default: 10).",
      valueName: "percent"),
    transform: WholeNumber.parser(0...100))
  var minShrink: UInt64 = 10

  @Option(
    help: ArgumentHelp(
      "Then: final (freeze) or abort (default: final).", valueName: "action"),
    transform: Choice.parser(StallAction.self))
  var onStall = StallAction.final

  @Option(
    help: ArgumentHelp(
      "On its execve: restart or abort (default: abort).", valueName: "action"),
    transform: Choice.parser(ExecAction.self))
  var onExec = ExecAction.abort

  func apply(to options: inout PredumpOptions) {
    options.policy.targetDowntimeNanoseconds = targetDowntime.nanoseconds
    options.policy.maxRounds = maxRounds
    options.policy.maxTimeNanoseconds = maxTime.nanoseconds
    options.policy.thresholdPages = thresholdPages
    options.policy.minShrinkPercent = minShrink
    options.policy.onStall = onStall
    options.onExec = onExec
  }
}

/// How the last round goes.
struct FreezeOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Then: running, stopped, killed (default: running).", valueName: "state"),
    transform: Choice.parser(LeaveState.self))
  var leave = LeaveState.running

  @Flag(help: "No final round: the images are not restorable yet.")
  var noFinal = false

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

  @Flag(help: "In the freeze compare every page: a long freeze.")
  var verifyFinal = false

  func validate() throws {
    if noFinal && verifyFinal {
      throw ValidationError("--verify-final looks at the final round, which --no-final leaves out")
    }
    if noFinal && leave != .running {
      throw ValidationError(
        "--no-final never freezes the process: it cannot be left \(leave.rawValue)")
    }
  }

  func apply(to options: inout PredumpOptions) {
    options.leave = leave
    options.takesFinalRound = !noFinal
    options.freezeTimeoutNanoseconds = freezeTimeout.nanoseconds
    options.freezeMemoryBytes = freezeMemory.bytes
    options.verifiesFinal = verifyFinal
  }
}

/// How pages are stored.
struct ImageOptions: ParsableArguments {
  /// The formats by name.
  enum Format: String, ExpressibleByArgument, CaseIterable { case lz4, none }

  @Option(
    help: ArgumentHelp(
      "lz4 (CRIU 4.3 or later reads it) or none (any CRIU).", valueName: "format"))
  var compress = Format.lz4

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Block of 4KiB to 4MiB (default: 64KiB).", valueName: "size"),
    transform: SizeValue.parser(4096...4 << 20, multipleOf: 4096))
  var compressBlock = SizeValue(bytes: UInt64(PageCompression.defaultPagesPerBlock) * 4096)

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("LZ4: more is faster and larger (default: 2).", valueName: "n"),
    transform: WholeNumber.parser(1...65537))
  var compressAcceleration = PageCompression.defaultAcceleration

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Compressing threads (default: one a processor).", valueName: "n"),
    transform: WholeNumber.parser(1...256))
  var threads: Int?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Memory for pages under way (default: some 2MiB a thread).", valueName: "size"),
    transform: SizeValue.parser(1 << 20...1 << 40, multipleOf: 4096))
  var memory: SizeValue?

  @Flag(help: "Do not wait for the disk; a power cut may lose images.")
  var noSync = false

  func validate() throws {
    guard let memory else { return }
    let least = PredumpOptions.leastPipelineMemory(compression, encoders: encoders)
    if memory.bytes < least {
      throw ValidationError(
        "--memory must be at least \(Units.bytes(least)) with \(Units.count(UInt64(encoders), "thread")) "
          + "and these blocks; give more, or fewer --threads, or a smaller --compress-block")
    }
  }

  func apply(to options: inout PredumpOptions) {
    options.compression = compression
    options.encoders = encoders
    options.pipelineMemoryBytes = memory?.bytes
    options.sync = !noSync
  }

  private var encoders: Int { threads ?? min(256, Processors.allowedCount) }

  private var compression: PageCompression {
    switch compress {
    case .none: .none
    case .lz4:
      .lz4(pagesPerBlock: Int(compressBlock.bytes / 4096), acceleration: compressAcceleration)
    }
  }
}

/// What is said during a dump.
struct TalkOptions: ParsableArguments {
  /// What to show within a round.
  enum Progress: String, ExpressibleByArgument, CaseIterable { case auto, plain, none }

  @OptionGroup var output: OutputOptions

  @Option(
    help: ArgumentHelp(
      "What to show within a round.", valueName: "kind"))
  var progress = Progress.auto

  @Flag(name: .shortAndLong, help: "Errors only.")
  var quiet = false

  @Flag(name: .shortAndLong, help: "Say more; with --json, progress events too.")
  var verbose = false

  func validate() throws {
    if quiet && verbose { throw ValidationError("--quiet and --verbose contradict each other") }
  }
}
