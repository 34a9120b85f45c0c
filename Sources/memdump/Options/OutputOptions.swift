internal import ArgumentParser

/// How results look.
struct OutputOptions: ParsableArguments {
  @Flag(help: "Print JSON on stdout, an object a line.")
  var json = false

  @Option(help: ArgumentHelp("Colours: auto, always or never.", valueName: "when"))
  var color = ColorChoice.auto

  /// The console that these options ask for; everything goes to standard error if standard output is
  /// taken.
  func console(isStdoutTaken: Bool) -> Console {
    Console(isJSON: json, color: color, isStdoutTaken: isStdoutTaken)
  }

  /// The console that these options ask for.
  var console: Console { Console(isJSON: json, color: color) }
}
