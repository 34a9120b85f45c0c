internal import Images
internal import Kernel
internal import Predump
internal import Synchronization

/// Tells people what happens during a dump: a line per round, and a bar within long ones.
final class HumanReporter: PredumpReporter {
  private struct State {
    var target: TargetIdentity?
    var rounds = 0
    /// Tenths of the current round that plain progress told of.
    var tenths: UInt64 = 0
  }

  private let console: Console
  private let talk: TalkSettings
  private let directory: String
  /// What tells people whether the images are good.
  private let checkCommand: String
  private let targetDowntimeNanoseconds: UInt64
  private let progress: ProgressLine
  private let state = Mutex(State())

  /// The options of `TalkOptions` that matter here, as plain values.
  private struct TalkSettings: Sendable {
    let isQuiet: Bool
    let isVerbose: Bool
    let showsBar: Bool
    let showsLines: Bool
  }

  init(
    _ console: Console, talk: TalkOptions, directory: String, isStored: Bool,
    targetDowntimeNanoseconds: UInt64
  ) {
    self.console = console
    let isAuto = talk.progress == .auto && !talk.quiet
    self.talk = TalkSettings(
      isQuiet: talk.quiet, isVerbose: talk.verbose,
      showsBar: isAuto && console.err.isTerminal && Environment.isSmartTerminal,
      showsLines: talk.progress == .plain && !talk.quiet)
    self.directory = directory
    checkCommand = isStored ? "memdump restore-check \(directory)" : "memdump restore-check there"
    self.targetDowntimeNanoseconds = targetDowntimeNanoseconds
    progress = ProgressLine(on: console.err)
  }

  var completeRounds: Int { state.withLock { $0.rounds } }

  func handle(_ event: PredumpEvent) {
    switch event {
    case .attached(let report): attached(report)
    case .memberChanged(let report): memberChanged(report)
    case .progress(let report): showProgress(report)
    case .roundFinished(let report): roundFinished(report)
    case .freezePredicted(let report): predicted(report)
    case .thawed(let report): thawed(report)
    case .warning(let text):
      progress.erase()
      if !talk.isQuiet { console.warn(text) }
    }
  }

  func stopping() {
    progress.erase()
    if !talk.isQuiet {
      console.err.write("memdump: stopping at the next safe point; again to stop at once\n")
    }
  }

  func eraseProgress() { progress.erase() }

  func finish(_ summary: PredumpSummary) {
    let target = state.withLock { $0.target }
    let bytesIn = summary.rounds.reduce(0) { $0 + $1.bytesIn }
    let bytesOut = summary.rounds.reduce(0) { $0 + $1.totals.payloadBytes }
    let rounds = Units.count(UInt64(summary.rounds.count), "round")
    let who = target.map { "\($0.command) (\($0.pid))" } ?? "the process"
    say(
      "Dumped \(who) in \(Units.duration(summary.wallNanoseconds)): \(rounds), "
        + "\(Units.bytes(bytesIn)) of memory (\(Units.bytes(summary.bytesWrittenAgain)) of it again) "
        + "in \(Units.bytes(bytesOut)) of images in \(directory)")
    slowdown(summary.slowdown)
    if let faults = summary.targetMinorFaults, talk.isVerbose {
      say("  The process took \(Units.count(faults, "minor page fault")) meanwhile.")
    }
    if let huge = summary.hugePages, huge.bytesBefore != huge.bytesAfter {
      let restored = huge.restoredBytes.map { ", \(Units.bytes($0)) of it given back" } ?? ""
      say(
        "Huge pages of the process: \(Units.bytes(huge.bytesBefore)) before, "
          + "\(Units.bytes(huge.bytesAfter)) now\(restored).")
    }
    switch summary.outcome {
    case .preDumpOnly:
      say("No final round was asked for: the images are not restorable yet.")
    case .completeOverBudget:
      say(
        console.outStyle.yellow("Complete, but the freeze was longer than asked for.")
          + " Check the images: \(checkCommand)")
    default:
      say(
        console.outStyle.green("Complete.")
          + " Check the images: \(checkCommand)")
    }
  }

  private func slowdown(_ cost: Slowdown) {
    let delay = cost.firstWriteNanoseconds.map {
      ", and some \(Units.duration($0)) for its first writes to \(Units.count(cost.firstWrites)) "
        + "protected pages"
    }
    say("Cost to the process: \(Units.duration(cost.stoppedNanoseconds)) stopped\(delay ?? "")")
  }

  private func attached(_ report: AttachReport) {
    state.withLock { $0.target = report.target }
    let others = UInt64(report.processCount - 1)
    let more = others == 0 ? "" : " and \(Units.count(others, "descendant"))"
    say(
      "Tracking \(report.target.command) (\(report.target.pid))\(more): "
        + "\(Units.bytes(report.residentBytes)) resident")
    if talk.isVerbose {
      say(
        "  \(Units.count(UInt64(report.vmaCount), "VMA")); one thread stood still for "
          + "\(Units.duration(report.stoppedNanoseconds)) to attach")
    }
    say(console.outStyle.bold(RoundLine.head))
  }

  private func memberChanged(_ report: MemberReport) {
    guard talk.isVerbose else { return }
    let what =
      switch report.change {
      case .came: "is dumped from round \(report.round) on"
      case .left: "left before round \(report.round)"
      case .replaced: "called execve before round \(report.round)"
      }
    say("  process \(report.target.pid) (\(report.target.command.printable)) \(what)")
  }

  private func roundFinished(_ report: RoundReport) {
    state.withLock {
      $0.rounds += 1
      $0.tenths = 0
    }
    say(RoundLine.text(report))
    guard talk.isVerbose else { return }
    say(
      "       \(Units.duration(report.wallNanoseconds)), of that "
        + "\(Units.duration(report.copyNanoseconds)) reading; "
        + "\(Units.count(report.pendingPages, "page")) written meanwhile; "
        + "\(Units.count(report.unchangedPages, "page")) written with the same bytes"
        + (report.waitingPages > 0
          ? "; \(Units.count(report.waitingPages, "hot page")) left to the freeze" : ""))
  }

  private func predicted(_ report: FreezePrediction) {
    switch report.verdict {
    case .converged(.fewPages): say("Converged: few pages are left.")
    case .converged(.withinTargetDowntime):
      say("Converged: the freeze should take no longer than asked for.")
    case .converged(.requested): say("The last round was asked for.")
    case .stalled(let reason):
      progress.erase()
      if !talk.isQuiet {
        console.warn(
          "not converged: \(reason). Freezing all the same (--on-stall final); a higher "
            + "--target-downtime would be met earlier")
      }
    case .nextRound: break
    }
    say(
      "Freeze: predicted \(Units.duration(report.nanoseconds)) "
        + "for \(Units.count(report.pages, "page"))")
  }

  private func thawed(_ report: FreezeReport) {
    let isLong = report.ownNanoseconds > targetDowntimeNanoseconds
    let frozen = Units.duration(report.frozenNanoseconds)
    say(
      "Freeze: took \(isLong ? console.outStyle.yellow(frozen) : console.outStyle.green(frozen)) "
        + "for \(Units.count(report.pages, "page")): "
        + "\(Units.duration(report.freezingNanoseconds)) to stop "
        + "\(Units.count(UInt64(report.threadCount), "thread"))"
        + (report.processCount > 1
          ? " of \(Units.count(UInt64(report.processCount), "process"))" : "") + ", "
        + "\(Units.duration(report.copyNanoseconds)) to find and copy pages"
        + (report.commandNanoseconds.map { ", \(Units.duration($0)) for commands" } ?? ""))
    if report.requestsInFlight > 0, !talk.isQuiet {
      console.warn(
        "\(Units.count(UInt64(report.requestsInFlight), "io_uring request")) may have been under way "
          + "in the freeze: what they wrote after it is in no image")
    }
  }

  private func showProgress(_ report: RoundProgress) {
    // The expected number is an estimate: what is done counts as expected.
    let total = max(report.pagesExpected, report.pagesDone)
    let text = "\(Units.pages(report.pagesDone)) of \(Units.pages(total))"
    if talk.showsBar {
      let bar = ProgressLine.bar(report.pagesDone, of: total, width: 24)
      progress.show("round \(report.round) \(bar) \(text)")
    } else if talk.showsLines {
      let tenths = total == 0 ? 0 : report.pagesDone * 10 / total
      let isNew = state.withLock { state in
        defer { state.tenths = max(tenths, state.tenths) }
        return tenths > state.tenths
      }
      if isNew { console.err.write("round \(report.round): \(text)\n") }
    }
  }

  private func say(_ line: String) {
    progress.erase()
    if !talk.isQuiet { console.print(line) }
  }
}
