internal import ArgumentParser
internal import Predump

/// The user's commands, before and during a dump.
struct CommandOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Run in the freeze, under SIGSTOP, untraced.",
      valueName: "command"))
  var onFrozen: String?

  @Option(
    help: ArgumentHelp(
      "Run at every step (MEMDUMP_EVENT).", valueName: "command"))
  var onEvent: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("After which a command has failed (default: 1m).", valueName: "time"),
    transform: DurationValue.parser(1_000_000...86_400_000_000_000))
  var hookTimeout = DurationValue(nanoseconds: 60_000_000_000)

  @Option(
    help: ArgumentHelp(
      "Listen there for memdump control.", valueName: "socket"))
  var control: String?

  func validate(noFinal: Bool) throws {
    if noFinal, onFrozen != nil {
      throw ValidationError("--on-frozen is for the freeze, which --no-final leaves out")
    }
    if onFrozen?.isEmpty ?? false || onEvent?.isEmpty ?? false {
      throw ValidationError("the command of --on-frozen or --on-event is empty")
    }
  }

  func apply(to options: inout PredumpOptions) {
    options.hooks.onFrozen = onFrozen
    options.hooks.onEvent = onEvent
    options.hooks.timeoutNanoseconds = hookTimeout.nanoseconds
  }
}
