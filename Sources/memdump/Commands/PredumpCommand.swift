internal import ArgumentParser
internal import Images
internal import Kernel
internal import Predump
internal import Tracee

/// `memdump predump`: dumps a process in rounds.
struct PredumpCommand: Subcommand {
  static let configuration = CommandConfiguration(
    commandName: "predump",
    abstract: "Dump a running process in rounds, and freeze it only for the last.",
    usage: "memdump predump --pid N [--images-dir DIR] [--to DEST] [options]",
    discussion: """
      Example:
        memdump predump --pid 1234 --images-dir /var/tmp/dump --target-downtime 20ms
      \(ExitStatus.line([
        .success, .overBudget, .targetGone, .notPermitted, .unsupportedKernel, .notConverged,
        .unsuitableTarget, .outOfSpace, .unusableDirectory, .linkBroken, .commandFailed,
        .usage, .interrupted, .terminated,
      ]))
      """)

  @OptionGroup(title: "What and where to") var target: TargetOptions
  @OptionGroup(title: "What and where to") var tls: TLSOptions
  @OptionGroup(title: "When to freeze") var convergence: ConvergenceOptions
  @OptionGroup(title: "The rounds") var gentle: GentleOptions
  @OptionGroup(title: "The freeze") var freeze: FreezeOptions
  @OptionGroup(title: "Commands of your own") var commands: CommandOptions
  @OptionGroup(title: "Images") var images: ImageOptions
  @OptionGroup(title: "Output") var talk: TalkOptions

  mutating func validate() throws {
    try talk.validate()
    try freeze.validate()
    try commands.validate(noFinal: freeze.noFinal)
    _ = try tls.credentials(for: target.to)
    if target.reconnect != nil && commands.onFrozen != nil {
      throw ValidationError(
        "--reconnect may freeze the process again: what --on-frozen made would be void")
    }
    guard target.to != nil else { return }
    if freeze.leave == .killed {
      throw ValidationError(
        "--leave killed and --to contradict each other: the link may break after the freeze. "
          + "Use --leave stopped, and kill the process when memdump ended with 0 or 3")
    }
    if freeze.verifyFinal && target.imagesDirectory == nil {
      throw ValidationError("--verify-final reads the images: it needs --images-dir besides --to")
    }
  }

  // Images on standard output leave standard error for everything else.
  func console() -> Console { talk.output.console(isStdoutTaken: target.to == .standard) }

  func execute(_ console: Console) throws(CommandFailure) -> ExitStatus {
    let cancellation = Cancellation()
    let reporter = reporter(console)
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
    let control = try ControlServer.open(
      commands.control, status, cancellation, takesFinalRound: !freeze.noFinal)
    defer { control?.finish() }
    do throws(PredumpError) {
      let summary = try Predump.run(
        options, cancellation: cancellation,
        // From here on this thread only waits, which takes no capability.
        meanwhile: { try? ThisThread.keepCapabilities([]) },
        onEvent: { event in
          status.note(event)
          reporter.handle(event)
        })
      reporter.finish(summary)
      return summary.outcome == .completeOverBudget ? .overBudget : .success
    } catch {
      reporter.eraseProgress()
      throw explain(error, reporter.completeRounds, watch.status)
    }
  }

  private var options: PredumpOptions {
    var options = PredumpOptions(pid: target.pid, imagesDirectory: target.imagesDirectory ?? "")
    options.imagesDirectory = target.imagesDirectory
    options.destination = target.to
    // Validated.
    options.tls = try? tls.credentials(for: target.to)
    options.linkTimeoutNanoseconds = target.linkTimeout.nanoseconds
    options.reconnectNanoseconds = target.reconnect?.nanoseconds ?? 0
    options.includesDescendants = target.tree
    convergence.apply(to: &options)
    gentle.apply(to: &options)
    freeze.apply(to: &options)
    images.apply(to: &options)
    commands.apply(to: &options)
    options.faults = FaultPlan.fromEnvironment()
    return options
  }

  private func reporter(_ console: Console) -> any PredumpReporter {
    console.isJSON
      ? JSONReporter(console, isVerbose: talk.verbose, directory: target.place)
      : HumanReporter(
        console, talk: talk, directory: target.place, isStored: target.imagesDirectory != nil,
        targetDowntimeNanoseconds: convergence.targetDowntime.nanoseconds)
  }

  /// Says what became of the rounds, which the error itself does not know.
  private func explain(_ error: PredumpError, _ rounds: Int, _ interrupted: ExitStatus)
    -> CommandFailure
  {
    let kept =
      rounds == 0
      ? "no round was complete: nothing is kept"
      : "\(Units.count(UInt64(rounds), "complete round")) kept in \(target.place)"
    switch error {
    case .interrupted:
      return CommandFailure(
        interrupted, kind: "interrupted",
        "interrupted: process \(target.pid) runs on untracked, \(kept)")
    case .notConverged(let reason, let rounds):
      return CommandFailure(
        .notConverged, kind: "not-converged",
        "not converged after \(Units.count(UInt64(rounds), "round")): \(reason); \(kept). Raise "
          + "--target-downtime, or let --on-stall final take the longer freeze")
    default:
      let failure = CommandFailure(error)
      // The receiver, not this side, knows what is kept there: what it has acknowledged, at least.
      if case .link = error, target.imagesDirectory == nil { return failure }
      guard rounds > 0 else { return failure }
      return CommandFailure(failure.status, kind: failure.kind, "\(failure.message); \(kept)")
    }
  }
}
