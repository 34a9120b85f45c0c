internal import ArgumentParser
internal import Images
internal import Predump

/// `memdump`: the root of the command line.
@main struct MemdumpCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "memdump",
    abstract: "Dump a running process's memory in rounds, and freeze it only for the last.",
    discussion: """
      Example:
        memdump predump --pid 1234 --images-dir /var/tmp/dump
        memdump restore-check /var/tmp/dump

      Exit codes:
      \(ExitStatus.table)
      """,
    version: "memdump \(Predump.version) (image records: version \(ChainContents.recordVersion))",
    subcommands: [
      PredumpCommand.self, ReceiveCommand.self, RestoreCheckCommand.self, MergeCommand.self,
      InspectCommand.self, CheckCommand.self, CRIUDumpCommand.self, RestoreCommand.self,
      ServeCommand.self, MigrateCommand.self, ResolveCommand.self, ControlCommand.self,
    ])

  static func main() { Launcher.run(Array(CommandLine.arguments.dropFirst())) }
}
