internal import Kernel
internal import Predump
internal import Synchronization

/// How far a dump is, for who asks by SIGUSR1.
final class StatusLine: Sendable {
  private let began = MonotonicClock.now
  private let state = Mutex("attaching")

  /// Takes note of an event.
  func note(_ event: PredumpEvent) {
    let text: String
    switch event {
    case .attached: text = "round 1 begins"
    case .progress(let report):
      let total = max(report.pagesExpected, report.pagesDone)
      text =
        "round \(report.round), \(Units.pages(report.pagesDone)) of \(Units.pages(total)) pages"
    case .roundFinished(let report):
      text =
        "round \(report.index) is complete, "
        + "\(Units.count(report.pendingPages, "page")) written meanwhile"
    case .freezePredicted(let report):
      text = "freezing, predicted for \(Units.duration(report.nanoseconds))"
    case .thawed: text = "thawed, writing the last round"
    case .memberChanged, .warning: return
    }
    state.withLock { $0 = text }
  }

  /// Takes note of what is done now.
  func note(_ text: String) { state.withLock { $0 = text } }

  /// One line.
  var text: String {
    let elapsed = Units.duration(MonotonicClock.now - began)
    return state.withLock { "memdump: after \(elapsed): \($0)\n" }
  }
}
