internal import Migration
internal import Predump

/// Tells the user what happens during a migration, at its source.
final class MigrateTeller: Sendable {
  private let console: Console
  private let reporter: any PredumpReporter
  private let status: StatusLine
  private let isQuiet: Bool

  init(
    _ console: Console, _ reporter: any PredumpReporter, _ status: StatusLine, isQuiet: Bool
  ) {
    self.console = console
    self.reporter = reporter
    self.status = status
    self.isQuiet = isQuiet
  }

  func handle(_ event: MigrateEvent) {
    switch event {
    case .predump(let event):
      status.note(event)
      reporter.handle(event)
    case .agreed(let readsCompressed):
      step(
        "agreed", "the destination restores with a criu that reads \(Self.format(readsCompressed))")
    case .dumped: step("dumped", "criu has dumped the process, its connections are locked")
    case .ready: step("ready", "the copy is there")
    case .committing: step("committing", "the copy is told to run")
    case .resumed: step("resumed", "the process runs on here")
    }
  }

  /// Tells how it ended.
  func finish(_ summary: MigrateSummary, destination: String) {
    if console.isJSON {
      console.event("migrated", MigratedBody(summary, destination: destination))
      return
    }
    guard !isQuiet else { return }
    let split = summary.downtime
    console.print(
      "Stood still for \(Units.duration(split.total)): "
        + Self.parts(split).map { "\(Units.duration($0.1)) \($0.0)" }.joined(separator: ", "))
    console.print(
      console.outStyle.green("Moved.")
        + " Process \(summary.pid) runs at \(destination), and has ended here.")
  }

  private static func parts(_ split: DowntimeSplit) -> [(String, UInt64)] {
    [
      ("to freeze", split.freezing), ("to copy the last pages", split.copying),
      ("to send them", split.sendingRound), ("for criu's dump", split.criuDump),
      ("to send the rest of it", split.transfer), ("to restore", split.restore),
      ("to let it run", split.commit),
    ]
  }

  private static func format(_ readsCompressed: Bool) -> String {
    readsCompressed ? "LZ4" : "plain pages"
  }

  private func step(_ name: String, _ text: String) {
    status.note(text)
    if console.isJSON { console.event("step", StepBody(step: name)) }
  }

  private struct StepBody: Encodable, Sendable { let step: String }
}

/// `migrated`: the process runs at the destination.
struct MigratedBody: Encodable, Sendable {
  let pid: Int32
  let destination: String
  let rounds: Int
  let omission: String
  let frozenNs: UInt64
  let freezeNs: UInt64
  let copyNs: UInt64
  let sendRoundNs: UInt64
  let criuDumpNs: UInt64
  let transferNs: UInt64
  let restoreNs: UInt64
  let commitNs: UInt64
  let imageBytes: UInt64
  let wallNs: UInt64

  init(_ summary: MigrateSummary, destination: String) {
    pid = summary.pid
    self.destination = destination
    rounds = summary.rounds.rounds.count
    omission = summary.omission.rawValue
    frozenNs = summary.downtime.total
    freezeNs = summary.downtime.freezing
    copyNs = summary.downtime.copying
    sendRoundNs = summary.downtime.sendingRound
    criuDumpNs = summary.downtime.criuDump
    transferNs = summary.downtime.transfer
    restoreNs = summary.downtime.restore
    commitNs = summary.downtime.commit
    imageBytes = summary.imageBytes
    wallNs = summary.wallNanoseconds
  }
}
