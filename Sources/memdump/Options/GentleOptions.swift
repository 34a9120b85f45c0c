internal import ArgumentParser
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

  func apply(to options: inout PredumpOptions) {
    options.bytesPerSecondLimit = bwlimit?.bytes ?? 0
    options.pauseBetweenRoundsNanoseconds = pauseBetweenRounds.nanoseconds
    options.scan = scan
  }
}
