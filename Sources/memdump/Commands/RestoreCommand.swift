internal import ArgumentParser
internal import Migration

/// `memdump restore`: restores a process with CRIU.
struct RestoreCommand: Subcommand {
  static let configuration = CommandConfiguration(
    commandName: "restore",
    abstract: "Restore a process with CRIU from a dump that criu-dump completed.",
    usage: "memdump restore DIR [--criu PATH] [-- CRIU-OPTIONS]",
    discussion: """
      Checks the images and runs criu restore, detached. memdump fills the memory before the process \
      runs, with all processors; with --fill criu, criu does. DIR keeps its images; criu's log is DIR/criu-restore.log.
      Example:
        memdump restore /var/tmp/dump -- --shell-job
      \(ExitStatus.line([
        .success, .failure, .noImages, .damaged, .notRestorable, .outOfSpace, .usage,
      ]))
      """)

  @Argument(help: ArgumentHelp("The dump's directory.", valueName: "dir"))
  var directory: String

  @Flag(inversion: .prefixedNo, help: "Check every byte of the images first.")
  var check = true

  @Option(
    help: ArgumentHelp("Who fills the memory: auto, memdump, criu.", valueName: "who"),
    transform: Choice.parser(MemoryFilling.self))
  var fill = MemoryFilling.automatic

  @OptionGroup var criu: CRIUOptions
  @OptionGroup var output: OutputOptions

  func console() -> Console { output.console }

  func execute(_ console: Console) throws(CommandFailure) -> ExitStatus {
    var options = RestoreOptions(directory: directory)
    options.criu = criu.program
    options.arguments = criu.arguments
    options.checks = check
    options.filling = fill
    do throws(MigrationError) {
      let summary = try Restore.run(options)
      if console.isJSON {
        console.event("restore", RestoreBody(summary))
      } else {
        let who = summary.pid.map { "process \($0)" } ?? "the process"
        var text = "Restored \(who): criu took \(Units.duration(summary.criuNanoseconds))"
        if options.checks { text += ", the check \(Units.duration(summary.checkNanoseconds))" }
        if summary.filledPages > 0 {
          text += ", of it \(Units.duration(summary.fillNanoseconds)) to fill memory"
        }
        if summary.unpackedPages > 0 {
          text += ", unpacking \(Units.duration(summary.prepareNanoseconds))"
        }
        console.print(text)
      }
      return .success
    } catch { throw CommandFailure(error) }
  }
}

/// The JSON of a summary.
struct RestoreBody: Encodable, Sendable {
  let pid: Int32?
  let pagesUnpacked: UInt64
  let pagesFilled: UInt64
  let checkNs: UInt64
  let unpackNs: UInt64
  let fillNs: UInt64
  let criuNs: UInt64

  init(_ summary: RestoreSummary) {
    pid = summary.pid
    pagesUnpacked = summary.unpackedPages
    pagesFilled = summary.filledPages
    fillNs = summary.fillNanoseconds
    checkNs = summary.checkNanoseconds
    unpackNs = summary.prepareNanoseconds
    criuNs = summary.criuNanoseconds
  }
}
