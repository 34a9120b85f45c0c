internal import ArgumentParser
internal import Kernel
internal import Migration
internal import Predump

/// `memdump resolve`: decides over a process that a migration left held.
struct ResolveCommand: Subcommand {
  static let configuration = CommandConfiguration(
    commandName: "resolve",
    abstract: "Let a process end or go on that a migration left held (exit code 29).",
    usage: "memdump resolve DIR [--outcome running|aborted]",
    discussion: """
      Asks the destination what became of the copy. Where nobody answers any more, look there, and \
      say it with --outcome: if the copy runs, the process here is ended, else it goes on.
      Example:
        memdump resolve /var/tmp/memdump-migrate-1x9k2
      \(ExitStatus.line([.success, .failure, .undecided, .usage]))
      """)

  /// What the user knows of the copy.
  enum Outcome: String, ExpressibleByArgument, CaseIterable { case running, aborted }

  @Argument(help: ArgumentHelp("The directory that migrate named.", valueName: "dir"))
  var directory: String

  @Option(help: ArgumentHelp("What is known: running or aborted.", valueName: "outcome"))
  var outcome: Outcome?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("How long to ask (default: 10s).", valueName: "time"),
    transform: DurationValue.parser(1_000_000...86_400_000_000_000))
  var outcomeTimeout = DurationValue(nanoseconds: 10_000_000_000)

  @OptionGroup(title: "To ask at tls:") var tls: TLSOptions
  @OptionGroup var output: OutputOptions

  func console() -> Console { output.console }

  func execute(_ console: Console) throws(CommandFailure) -> ExitStatus {
    let known: MoveOutcome? =
      switch outcome {
      case .running: .running(pid: nil)
      case .aborted: .aborted("by hand")
      case nil: nil
      }
    do throws(MigrationError) {
      let summary = try MoveResolution.run(
        directory, outcome: known, tls: tls.given,
        patienceNanoseconds: outcomeTimeout.nanoseconds)
      let isMoved: Bool
      if case .running = summary.outcome { isMoved = true } else { isMoved = false }
      if console.isJSON {
        console.event(
          "resolved",
          ResolvedBody(
            pid: summary.pid, destination: summary.destination,
            outcome: (isMoved ? Outcome.running : .aborted).rawValue))
      } else {
        console.print(
          isMoved
            ? "Process \(summary.pid) runs at \(summary.destination), and has ended here."
            : "Process \(summary.pid) runs on here.")
      }
      return .success
    } catch { throw CommandFailure(error) }
  }

  private struct ResolvedBody: Encodable, Sendable {
    let pid: Int32
    let destination: String
    let outcome: String
  }
}
