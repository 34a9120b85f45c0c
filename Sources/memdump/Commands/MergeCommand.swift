internal import ArgumentParser
internal import Images
internal import Kernel
internal import Predump

/// `memdump merge`: makes one directory of a chain.
struct MergeCommand: Subcommand {
  static let configuration = CommandConfiguration(
    commandName: "merge",
    abstract: "Make one directory of a chain of rounds: every page stored, no parent.",
    usage: "memdump merge DIR OUT [--compress lz4|none] [--json] [-q]",
    discussion: """
      For tools that know one parent directory at most, and for keeping. Everything is verified \
      on the way. --compress none makes what any CRIU reads.
      Example:
        memdump merge /var/tmp/dump /var/tmp/checkpoint --compress none
      \(ExitStatus.line([
        .success, .noImages, .damaged, .notRestorable, .outOfSpace, .unusableDirectory, .usage,
        .interrupted, .terminated,
      ]))
      """)

  @Argument(help: ArgumentHelp("The images: a dump's directory, or one round's.", valueName: "dir"))
  var source: String

  @Argument(help: ArgumentHelp("The directory to make; it must not exist.", valueName: "out"))
  var output: String

  @Option(
    help: ArgumentHelp(
      "lz4 (CRIU 4.3 or later reads it) or none (any CRIU); default: as it is.",
      valueName: "format"))
  var compress: ImageOptions.Format?

  @Flag(help: "Do not wait for the disk; a power cut may lose the result.")
  var noSync = false

  @Flag(name: .shortAndLong, help: "Errors only.")
  var quiet = false

  @OptionGroup var outputOptions: OutputOptions

  func console() -> Console { outputOptions.console }

  func execute(_ console: Console) throws(CommandFailure) -> ExitStatus {
    let cancellation = Cancellation()
    let watch = SignalWatch(cancellation, onFirst: {}, onSecond: {})
    do throws(KernelError) { try watch.start() } catch {
      throw CommandFailure(PredumpError.kernel(error))
    }
    do throws(ChainMerge.Failure) {
      let summary = try ChainMerge.run(options, cancellation: cancellation)
      tell(summary, console)
      return summary.isRestorable ? .success : .notRestorable
    } catch { throw explain(error, watch.status) }
  }

  private var options: ChainMerge.Options {
    var options = ChainMerge.Options(source: source, output: output)
    options.compression = compress.map { $0 == .none ? .none : .standard }
    options.encoders = min(256, Processors.allowedCount)
    options.sync = !noSync
    return options
  }

  private func tell(_ summary: ChainMerge.Summary, _ console: Console) {
    if console.isJSON {
      console.event("merge", MergeBody(summary, output: output))
      return
    }
    if quiet { return }
    let totals = summary.totals
    console.print(
      "\(output): \(Units.count(totals.pagesStored, "page")), "
        + "\(Units.bytes(totals.payloadBytes)), of "
        + Units.count(UInt64(summary.rounds), "round"))
    if !summary.isRestorable {
      console.warn("the chain has no final round: this cannot be restored yet")
    }
  }

  private func explain(_ failure: ChainMerge.Failure, _ interrupted: ExitStatus) -> CommandFailure {
    switch failure {
    case .unsound(let report) where report.verdict == .noImages:
      return CommandFailure(
        .noImages, kind: "no-images",
        "\(source): \(report.findings.first?.message ?? "no images there")")
    case .unsound(let report):
      let first = report.findings.first { $0.severity == .damage }
      return CommandFailure(
        .damaged, kind: first?.kind.rawValue ?? "damaged",
        "\(source) is damaged, nothing was merged: \(first?.file ?? ""): \(first?.message ?? ""); "
          + "memdump restore-check tells all")
    case .reading(let error): return CommandFailure(reading: error)
    case .writing(.interrupted):
      return CommandFailure(
        interrupted, kind: "interrupted", "interrupted: nothing is left of \(output)")
    case .writing(let error): return CommandFailure(error)
    }
  }
}

/// `merge` as JSON.
private struct MergeBody: Encodable, Sendable {
  let output: String
  let rounds: Int
  let pagesStored: UInt64
  let pagesZero: UInt64
  let bytesOut: UInt64
  let isRestorable: Bool

  init(_ summary: ChainMerge.Summary, output: String) {
    self.output = output
    rounds = summary.rounds
    pagesStored = summary.totals.pagesStored
    pagesZero = summary.totals.pagesZero
    bytesOut = summary.totals.payloadBytes
    isRestorable = summary.isRestorable
  }
}
