internal import ArgumentParser
internal import Kernel
internal import Predump

/// How much the process may feel of the rounds, and how pages are looked for.
struct GentleOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Bytes a second read from the process at most.", valueName: "size"),
    transform: SizeValue.parser(64 << 10...1 << 40, multipleOf: 1))
  var bwlimit: SizeValue?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Leave it alone so long between rounds (default: 0s).", valueName: "time"),
    transform: DurationValue.parser(0...3_600_000_000_000))
  var pauseBetweenRounds = DurationValue(nanoseconds: 0)

  @Option(
    help: ArgumentHelp(
      "Stop threads while looking for pages: auto (if it uses direct I/O, aio, io_uring), live, stopped.",
      valueName: "mode"),
    transform: Choice.parser(ScanMode.self))
  var scan = ScanMode.auto

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("memdump's nice value outside of the freeze.", valueName: "n"),
    transform: WholeNumber.parser(-20...19))
  var nice: Int32?

  @Option(
    help: ArgumentHelp(
      "Its disk priority: idle or best-effort[:0-7].", valueName: "class"),
    transform: GentleOptions.ioPriority)
  var ionice: IOPriority?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Then give it its huge pages back, at most so long.",
      valueName: "time"),
    transform: DurationValue.parser(1_000_000...3_600_000_000_000))
  var restoreThp: DurationValue?

  private static func ioPriority(_ text: String) throws -> IOPriority {
    if text == "idle" { return .idle }
    if text == "best-effort" { return .bestEffort(4) }
    let level = text.hasPrefix("best-effort:") ? Int32(text.dropFirst(12)) : nil
    guard let level, (0...7).contains(level) else {
      throw ValidationError("must be idle, best-effort or best-effort:0 to best-effort:7")
    }
    return .bestEffort(level)
  }

  func apply(to options: inout PredumpOptions) {
    options.bytesPerSecondLimit = bwlimit?.bytes ?? 0
    options.pauseBetweenRoundsNanoseconds = pauseBetweenRounds.nanoseconds
    options.scan = scan
    options.gentleness.nice = nice
    options.gentleness.io = ionice
    options.restoreHugePagesNanoseconds = restoreThp?.nanoseconds
  }
}
