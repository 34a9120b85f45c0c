internal import ArgumentParser
internal import Images
internal import Kernel
internal import Migration
internal import Predump

/// `memdump migrate`: moves a running process to another machine.
struct MigrateCommand: Subcommand {
  static let configuration = CommandConfiguration(
    commandName: "migrate",
    abstract: "Move a running process to where memdump receive --restore waits.",
    usage: "memdump migrate --pid N --to DEST [options] [-- CRIU-DUMP-OPTIONS]",
    discussion: """
      Whatever fails, it runs on exactly one side: here, until the other side has it whole.
      Example:
        memdump migrate --pid 1234 --to tcp:there:7000 -- --tcp-established
      \(ExitStatus.line([
        .success, .failure, .overBudget, .targetGone, .notPermitted, .unsupportedKernel,
        .notConverged, .unsuitableTarget, .outOfSpace, .linkBroken, .commandFailed, .undecided,
        .usage, .interrupted,
      ]))
      """)

  @OptionGroup(title: "What and where to") var target: TargetOptions
  @OptionGroup(title: "What and where to") var tls: TLSOptions
  @OptionGroup(title: "When to freeze") var convergence: ConvergenceOptions
  @OptionGroup(title: "The rounds") var gentle: GentleOptions
  @OptionGroup(title: "The freeze") var limits: FreezeLimitOptions
  @OptionGroup(title: "CRIU") var criu: CRIUOptions
  @OptionGroup(title: "The move") var move: MoveOptions
  @OptionGroup(title: "Output") var talk: TalkOptions

  mutating func validate() throws {
    try talk.validate()
    try move.validate()
    guard let destination = target.to else {
      throw ValidationError("Missing expected argument '--to <dest>': where does it go?")
    }
    _ = try tls.credentials(for: destination)
    if destination == .standard {
      throw ValidationError(
        "--to - is one stream: a migration has to hear what became of the process. Forward a "
          + "socket with ssh -L, and use unix:PATH")
    }
  }

  func console() -> Console { talk.output.console }

  func execute(_ console: Console) throws(CommandFailure) -> ExitStatus {
    let cancellation = Cancellation()
    let reporter: any PredumpReporter =
      console.isJSON
      ? JSONReporter(console, isVerbose: talk.verbose, directory: target.place)
      : HumanReporter(
        console, talk: talk, directory: target.place, isStored: false,
        targetDowntimeNanoseconds: convergence.targetDowntime.nanoseconds)
    let status = StatusLine()
    let watch = SignalWatch(
      cancellation, onFirst: { reporter.stopping() }, onSecond: { reporter.eraseProgress() },
      onStatus: {
        reporter.eraseProgress()
        console.err.write(status.text)
      })
    do throws(KernelError) { try watch.start() } catch {
      throw CommandFailure(PredumpError.kernel(error))
    }
    let control = try ControlServer.open(move.control, status, cancellation)
    defer { control?.finish() }
    let teller = MigrateTeller(console, reporter, status, isQuiet: talk.quiet)
    do throws(MigrationError) {
      let summary = try Migrate.run(options, cancellation: cancellation) { teller.handle($0) }
      reporter.eraseProgress()
      teller.finish(summary, destination: target.place)
      let split = summary.downtime
      let took = split.freezing + split.copying + split.sendingRound
      return took > convergence.targetDowntime.nanoseconds ? .overBudget : .success
    } catch {
      reporter.eraseProgress()
      throw explain(error, watch.status)
    }
  }

  private var options: MigrateOptions {
    var options = MigrateOptions(pid: target.pid, destination: target.to ?? .standard)
    options.predump.imagesDirectory = target.imagesDirectory
    options.predump.linkTimeoutNanoseconds = target.linkTimeout.nanoseconds
    options.predump.reconnectNanoseconds = target.reconnect?.nanoseconds ?? 0
    options.predump.tls = try? tls.credentials(for: target.to)
    options.predump.includesDescendants = target.tree
    convergence.apply(to: &options.predump)
    gentle.apply(to: &options.predump)
    limits.apply(to: &options.predump)
    options.criu = criu.program
    options.arguments = criu.arguments
    move.apply(to: &options)
    return options
  }

  /// Says where the process is, which the error itself does not know.
  private func explain(_ error: MigrationError, _ interrupted: ExitStatus) -> CommandFailure {
    let here = "process \(target.pid) runs on here"
    switch error {
    case .undecided: return CommandFailure(error)
    case .process(.interrupted):
      return CommandFailure(interrupted, kind: "interrupted", "interrupted: \(here)")
    case .process(.targetGone): return CommandFailure(error)
    default:
      let failure = CommandFailure(error)
      return CommandFailure(failure.status, kind: failure.kind, "\(failure.message); \(here)")
    }
  }
}
