internal import Images
internal import Predump
internal import Synchronization

/// Prints what happens during a dump as JSON, an object a line.
final class JSONReporter: PredumpReporter {
  private let console: Console
  private let isVerbose: Bool
  private let directory: String
  private let rounds = Atomic<Int>(0)

  init(_ console: Console, isVerbose: Bool, directory: String) {
    self.console = console
    self.isVerbose = isVerbose
    self.directory = directory
  }

  var completeRounds: Int { rounds.load(ordering: .acquiring) }

  func handle(_ event: PredumpEvent) {
    switch event {
    case .attached(let report): console.event("attached", AttachedBody(report))
    case .memberChanged(let report): console.event("member", MemberBody(report))
    case .progress(let report): if isVerbose { console.event("progress", ProgressBody(report)) }
    case .roundFinished(let report):
      rounds.add(1, ordering: .acquiringAndReleasing)
      console.event("round", RoundBody(report))
    case .freezePredicted(let report): console.event("prediction", PredictionBody(report))
    case .thawed(let report): console.event("thawed", ThawedBody(report))
    case .warning(let text): console.warn(text)
    }
  }

  func finish(_ summary: PredumpSummary) {
    console.event("summary", SummaryBody(summary, directory: directory))
  }

  func stopping() {}
  func eraseProgress() {}
}
