internal import ArgumentParser
internal import Migration

/// Which CRIU, and what it is told besides.
struct CRIUOptions: ParsableArguments {
  @Option(help: ArgumentHelp("The criu program (default: criu).", valueName: "path"))
  var criu = "criu"

  @Argument(
    parsing: .postTerminator,
    help: ArgumentHelp("Options for criu, after --.", valueName: "criu-options"))
  var arguments: [String] = []

  /// The program.
  var program: CRIUProgram { CRIUProgram(criu) }
}
