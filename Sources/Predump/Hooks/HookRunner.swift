internal import Glibc
internal import Images
internal import Kernel
internal import Tracee

/// Runs the user's commands, one at a time, on the engine's thread.
final class HookRunner: Sendable {
  private static let lookMilliseconds: Int32 = 20

  private let options: HookOptions
  private let pid: Int32
  private let imagesDirectory: String?
  private let cancellation: Cancellation
  private let onEvent: @Sendable (PredumpEvent) -> Void
  /// The engine's nice value outside of the freeze.
  private let nice = ThisThread.nice
  /// Undoes what our death would leave behind. There is one if there is any command.
  private let guardian: ProcessGuardian?

  /// To be made before the session: the guardian is forked while this process is small.
  init(
    _ options: PredumpOptions, _ cancellation: Cancellation,
    _ onEvent: @escaping @Sendable (PredumpEvent) -> Void
  ) throws(PredumpError) {
    self.options = options.hooks
    pid = options.pid
    imagesDirectory = options.imagesDirectory.map(WorkingDirectory.absolute)
    self.cancellation = cancellation
    self.onEvent = onEvent
    guard !options.hooks.isEmpty else {
      guardian = nil
      return
    }
    do throws(KernelError) { guardian = try ProcessGuardian() } catch { throw .kernel(error) }
  }

  /// Tells the user's command of an event.
  ///
  /// - Parameters:
  ///   - round: the one that the event is about.
  ///   - held: who stands still.
  /// - Throws: `.command` if it fails and the event is one that can still be stopped, `.interrupted`
  ///   if the user asked to stop meanwhile.
  func tell(
    _ event: HookEvent, _ round: RoundPlan? = nil, held: HeldProcess? = nil, message: String? = nil
  ) throws(PredumpError) {
    guard let command = options.onEvent, !options.omitted.contains(event) else { return }
    // A frozen round that is on disk is the whole dump.
    let isVeto = event.isVeto && !(event == .postRound && round?.kind == .frozen)
    do throws(PredumpError) {
      try run(
        command, option: "--on-event", event, round, held, message: message,
        heedsCancellation: isVeto)
    } catch {
      if isVeto { throw error }
      onEvent(.warning("\(error)"))
    }
  }

  /// Runs the user's commands for the freeze, if there are any. For the one of `--on-frozen` the
  /// processes are handed over.
  ///
  /// - Parameter commandNanoseconds: how long the process stood still for commands.
  /// - Throws: the process then runs on as before when `held` is dropped.
  func runInFreeze(
    _ held: HeldProcess, _ round: RoundPlan, timeoutNanoseconds: UInt64,
    commandNanoseconds: inout UInt64?
  ) throws(RoundFailure) {
    let began = MonotonicClock.now
    defer { if !options.isEmpty { commandNanoseconds = MonotonicClock.now - began } }
    do throws(PredumpError) { try tell(.frozen, round, held: held) } catch { throw .other(error) }
    guard let command = options.onFrozen, let guardian else { return }
    do throws(TraceError) {
      try held.handOver(guardian: guardian, timeoutNanoseconds: timeoutNanoseconds)
    } catch { throw Self.explain(error) }
    do throws(PredumpError) {
      try run(command, option: "--on-frozen", .frozen, round, held, heedsCancellation: true)
    } catch { throw .other(error) }
  }

  private static func explain(_ error: TraceError) -> RoundFailure {
    switch error {
    case .kernel(let cause): .kernel(cause)
    case .gone: .copy(.addressSpaceGone)
    default: .freeze(error)
    }
  }

  private func run(
    _ text: String, option: String, _ event: HookEvent, _ round: RoundPlan?, _ held: HeldProcess?,
    message: String? = nil, heedsCancellation: Bool
  ) throws(PredumpError) {
    func failure(_ how: String) -> PredumpError {
      .command("the command of \(option) \(how) (event \(event.rawValue))")
    }
    // In the freeze the engine runs before others. That is not for the command to inherit.
    let engineNice = ThisThread.nice
    try? ThisThread.setNice(nice)
    let command: ShellCommand
    do throws(KernelError) {
      // The guardian first: from the command's first step on, our death ends it.
      command = try ShellCommand(text, environment: environment(event, round, held, message)) {
        (group) throws(KernelError) in try guardian?.setGroup(group)
      }
    } catch { throw failure("could not be started: \(error)") }
    try? ThisThread.setNice(engineNice)
    defer { try? guardian?.setGroup(0) }
    let deadline = MonotonicClock.now + options.timeoutNanoseconds
    while true {
      switch command.end(within: Self.lookMilliseconds) {
      case .exited(0)?: return
      case .exited(let code)?: throw failure("exited with code \(code)")
      case .killed(let signal)?: throw failure("was killed by signal \(signal)")
      case nil: break
      }
      if heedsCancellation, cancellation.isCancelled {
        command.stop()
        throw .interrupted
      }
      if MonotonicClock.now > deadline {
        command.stop()
        throw failure(
          "did not end within \(options.timeoutNanoseconds / 1_000_000) ms (--hook-timeout)")
      }
    }
  }

  private func environment(
    _ event: HookEvent, _ round: RoundPlan?, _ held: HeldProcess?, _ message: String?
  ) -> [String: String] {
    var values = [
      "MEMDUMP_EVENT": event.rawValue, "MEMDUMP_PID": "\(pid)",
    ]
    values["MEMDUMP_IMAGES_DIR"] = imagesDirectory
    if let round {
      values["MEMDUMP_ROUND"] = "\(round.index)"
      values["MEMDUMP_ROUND_DIR"] = imagesDirectory.map { "\($0)/\(round.name)" }
    }
    if let held { values["MEMDUMP_PIDS"] = held.pids.map { "\($0)" }.joined(separator: " ") }
    if let message { values["MEMDUMP_MESSAGE"] = message }
    return values
  }
}
