internal import ArgumentParser
internal import Migration
internal import Tracee

/// `memdump criu-dump`: has CRIU dump what is not memory.
struct CRIUDumpCommand: Subcommand {
  static let configuration = CommandConfiguration(
    commandName: "criu-dump",
    abstract: "Have CRIU dump all that is not memory, after predump --leave stopped.",
    usage:
      "memdump criu-dump DIR [OPTIONS] [-- CRIU-OPTIONS]",
    discussion: """
      The process stays as the last round left it: it runs no instruction in between. CRIU's images \
      go to DIR/criu and refer to the rounds for memory. With --decide, COMMAND runs while the \
      process is held and its connections are locked: if it succeeds the process is ended, else it \
      runs on. It also runs on if anything fails, or if memdump is killed.
      Example:
        memdump criu-dump /var/tmp/dump --decide 'ssh there memdump restore /var/tmp/dump \
      -- --tcp-established' -- --tcp-established
      \(ExitStatus.line([
        .success, .failure, .noImages, .damaged, .targetGone, .notPermitted, .unsupportedKernel,
        .unsuitableTarget, .usage,
      ]))
      """)

  @Argument(help: ArgumentHelp("The dump's directory.", valueName: "dir"))
  var directory: String

  @Option(
    help: ArgumentHelp("The process afterwards: stopped, running, killed.", valueName: "state"),
    transform: Choice.parser(LeaveState.self))
  var leave: LeaveState?

  @Option(help: ArgumentHelp("Decides whether the process ends.", valueName: "command"))
  var decide: String?

  @Option(
    help: ArgumentHelp(
      "How CRIU leaves memory out: auto, lazy, soft-dirty, stream.", valueName: "way"),
    transform: Choice.parser(MemoryOmission.self))
  var omit = MemoryOmission.automatic

  @Flag(inversion: .prefixedNo, help: "Make the images survive a power cut first.")
  var sync = true

  @OptionGroup var criu: CRIUOptions
  @OptionGroup var output: OutputOptions

  func console() -> Console { output.console }

  func validate() throws {
    if leave != nil && decide != nil {
      throw ValidationError("--leave and --decide exclude each other")
    }
  }

  func execute(_ console: Console) throws(CommandFailure) -> ExitStatus {
    var options = StateDumpOptions(directory: directory)
    options.criu = criu.program
    options.arguments = criu.arguments
    options.sync = sync
    options.omission = omit
    options.fate = decide.map { .decided(by: $0) } ?? Self.fate(leave ?? .stopped)
    do throws(MigrationError) {
      let summary = try StateDump.run(options)
      if console.isJSON {
        console.event("criu-dump", CRIUDumpBody(summary))
      } else {
        console.print(
          "\(summary.directory): \(Units.bytes(summary.keptBytes)) of images, in "
            + "\(Units.duration(summary.nanoseconds))")
      }
      return .success
    } catch { throw CommandFailure(error) }
  }

  private static func fate(_ leave: LeaveState) -> Fate {
    switch leave {
    case .stopped: .stopped
    case .running: .running
    case .killed: .killed
    }
  }
}

/// The JSON of a summary.
struct CRIUDumpBody: Encodable, Sendable {
  let imagesDir: String
  let omission: String
  let wallNs: UInt64
  let bytesKept: UInt64
  let bytesDropped: UInt64

  init(_ summary: StateDumpSummary) {
    imagesDir = summary.directory
    omission = summary.omission.rawValue
    wallNs = summary.nanoseconds
    bytesKept = summary.keptBytes
    bytesDropped = summary.droppedBytes
  }
}
