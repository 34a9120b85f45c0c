internal import ArgumentParser

/// A command that ends with one of our exit codes.
protocol Subcommand: ParsableCommand {
  /// Where it writes.
  func console() -> Console

  /// Does its work; results go to the console.
  func execute(_ console: Console) throws(CommandFailure) -> ExitStatus
}
