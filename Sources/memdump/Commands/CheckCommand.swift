internal import ArgumentParser
internal import Predump

/// `memdump check`: says whether a dump can work here.
struct CheckCommand: Subcommand {
  static let configuration = CommandConfiguration(
    commandName: "check",
    abstract: "Say whether a dump can work here, and what to do if it cannot.",
    usage: "memdump check [--pid N] [--json]",
    discussion: """
      Example:
        memdump check --pid 1234
      \(ExitStatus.line([
        .success, .targetGone, .notPermitted, .unsupportedKernel, .unsuitableTarget, .usage,
      ]))
      """)

  @Option(
    parsing: .unconditional, help: ArgumentHelp("Check this process too.", valueName: "n"),
    transform: WholeNumber.parser(1...Int32.max))
  var pid: Int32?

  @OptionGroup var output: OutputOptions

  func console() -> Console { output.console }

  func execute(_ console: Console) throws(CommandFailure) -> ExitStatus {
    let report = GroundCheck.run(pid: pid, imagesDirectory: nil)
    let failure = report.failure.map { CommandFailure($0) }
    if console.isJSON {
      console.event("check", Body(report, pid: pid, exitCode: failure?.status ?? .success))
    } else {
      show(report, console)
    }
    if let failure { throw failure }
    if report.items.contains(where: { $0.status == .missing }) {
      throw CommandFailure(
        .unsupportedKernel, kind: "unsupported-kernel", "a dump cannot work here: see above")
    }
    if !console.isJSON { console.print(console.outStyle.green("A dump can work here.")) }
    return .success
  }

  private func show(_ report: CheckReport, _ console: Console) {
    let style = console.outStyle
    let width = report.items.reduce(0) { max($0, $1.title.count) }
    for item in report.items {
      let word = item.status.rawValue.padded(to: 7, .left)
      let status =
        switch item.status {
        case .ok: style.green(word)
        case .warning: style.yellow(word)
        case .missing: style.red(word)
        }
      console.print("\(status)  \(item.title.padded(to: width, .left))  \(item.detail)")
      if !item.remedy.isEmpty { console.print("         \(style.bold("remedy:")) \(item.remedy)") }
    }
  }

  private struct Body: Encodable {
    struct Item: Encodable {
      let id: String
      let title: String
      let status: String
      let detail: String
      let remedy: String?
    }

    let pid: Int32?
    let exitCode: Int32
    let items: [Item]

    init(_ report: CheckReport, pid: Int32?, exitCode: ExitStatus) {
      self.pid = pid
      self.exitCode = exitCode.rawValue
      items = report.items.map {
        Item(
          id: $0.id, title: $0.title, status: $0.status.rawValue, detail: $0.detail,
          remedy: $0.remedy.isEmpty ? nil : $0.remedy)
      }
    }
  }
}
