internal import ArgumentParser
internal import Images
internal import Kernel
internal import Predump

/// `memdump restore-check`: says whether images can be restored.
struct RestoreCheckCommand: Subcommand {
  static let configuration = CommandConfiguration(
    commandName: "restore-check",
    abstract: "Say whether images can be restored, without the process.",
    usage: "memdump restore-check DIR [--pid N] [--rebuild] [--json] [-q]",
    discussion: """
      Checks the whole chain of rounds: every record, block, digest and parent. With --pid also \
      every byte against the live process, which is frozen meanwhile; with --rebuild also \
      against an address space built anew from the images in a scratch process.
      Example:
        memdump restore-check /var/tmp/dump
      \(ExitStatus.line([
        .success, .noImages, .damaged, .notRestorable, .targetGone, .notPermitted, .usage,
      ]))
      """)

  @Argument(help: ArgumentHelp("The images: a dump's directory, or one round's.", valueName: "dir"))
  var directory: String

  @Option(
    parsing: .unconditional, help: ArgumentHelp("Compare with this live process.", valueName: "n"),
    transform: WholeNumber.parser(1...Int32.max))
  var pid: Int32?

  @Flag(help: "Build the address space anew and compare with that.")
  var rebuild = false

  @Flag(name: .shortAndLong, help: "Errors only.")
  var quiet = false

  @OptionGroup var output: OutputOptions

  func console() -> Console { output.console }

  func execute(_ console: Console) throws(CommandFailure) -> ExitStatus {
    let report = ChainVerifier.verify(directory)
    var comparisons = Comparisons()
    var failure: CommandFailure?
    if report.verdict == .restorable {
      do throws(PredumpError) { try compare(&comparisons) } catch {
        failure = Self.explain(error)
      }
    }
    let status = failure?.status ?? Self.status(report, comparisons)
    let result = RestoreCheckResult(
      report: report, comparisons: comparisons, status: status,
      wasAskedToCompare: pid != nil || rebuild)
    if console.isJSON {
      console.event("restore-check", RestoreCheckBody(result))
    } else if !quiet && report.verdict != .noImages {
      RestoreCheckText(result, console.outStyle).lines.forEach { console.print($0) }
    }
    if let failure { throw failure }
    // People have read the verdict already.
    let isSaid = !console.isJSON && !quiet && report.verdict != .noImages
    if status != .success && !isSaid { throw result.failure }
    return status
  }

  private func compare(_ comparisons: inout Comparisons) throws(PredumpError) {
    if let pid { comparisons.live = try LiveComparison.run(directory: directory, pid: pid) }
    if rebuild {
      comparisons.rebuild = try ScratchRebuild.run(directory: directory, comparingWith: pid)
    }
  }

  private static func explain(_ error: PredumpError) -> CommandFailure {
    if case .images(let cause) = error { return CommandFailure(reading: cause) }
    return CommandFailure(error)
  }

  private static func status(_ report: ChainReport, _ comparisons: Comparisons) -> ExitStatus {
    switch report.verdict {
    case .restorable: comparisons.areEqual ? .success : .damaged
    case .consistentNotRestorable: .notRestorable
    case .damaged: .damaged
    case .noImages: .noImages
    }
  }
}

/// The comparisons that were asked for and made.
struct Comparisons: Sendable {
  var live: MemoryComparison?
  var rebuild: MemoryComparison?

  /// Whether nothing differs anywhere.
  var areEqual: Bool { (live?.isEqual ?? true) && (rebuild?.isEqual ?? true) }
}
