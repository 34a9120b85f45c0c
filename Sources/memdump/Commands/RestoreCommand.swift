internal import ArgumentParser
internal import Glibc
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

  @Flag(
    help: ArgumentHelp(
      "Let the process run before its memory is there.",
      discussion: "It is killed if the rest cannot be given, or if memdump dies meanwhile."))
  var lazy = false

  @OptionGroup var criu: CRIUOptions
  @OptionGroup var output: OutputOptions

  func console() -> Console { output.console }

  func validate() throws {
    if lazy, fill == .criu {
      throw ValidationError("--lazy has memdump fill the memory: leave out --fill criu")
    }
  }

  func execute(_ console: Console) throws(CommandFailure) -> ExitStatus {
    var options = RestoreOptions(directory: directory)
    options.criu = criu.program
    options.arguments = criu.arguments
    options.checks = check
    options.filling = fill
    options.isLazy = lazy
    do throws(MigrationError) {
      let summary = try Restore.run(options) { tell($0, console) }
      if lazy { FilledBody(summary).tell(console) }
      return .success
    } catch { throw CommandFailure(error) }
  }

  private func tell(_ summary: RestoreSummary, _ console: Console) {
    // From now on our end is the process's.
    if lazy { for number in [SIGINT, SIGTERM, SIGHUP] { signal(number, SIG_IGN) } }
    if console.isJSON { return console.event("restore", RestoreBody(summary)) }
    let who = summary.pid.map { "process \($0)" } ?? "the process"
    var text = "Restored \(who): criu took \(Units.duration(summary.criuNanoseconds))"
    if check { text += ", the check \(Units.duration(summary.checkNanoseconds))" }
    if lazy {
      text += "; its memory is on the way"
    } else if summary.filledPages > 0 {
      text += ", of it \(Units.duration(summary.fillNanoseconds)) to fill memory"
    }
    if summary.unpackedPages > 0 {
      text += ", unpacking \(Units.duration(summary.prepareNanoseconds))"
    }
    console.print(text)
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

/// The JSON of memory that was filled while the process ran.
struct FilledBody: Encodable, Sendable {
  let pages: UInt64
  let pagesWaitedFor: UInt64
  let fillNs: UInt64

  init(_ summary: RestoreSummary) {
    pages = summary.filledPages
    pagesWaitedFor = summary.waitedPages
    fillNs = summary.fillNanoseconds
  }

  func tell(_ console: Console) {
    if console.isJSON { return console.event("filled", self) }
    console.print(
      "Filled \(Units.count(pages, "page")) in \(Units.duration(fillNs)); threads waited for "
        + "\(Units.count(pagesWaitedFor))")
  }
}
