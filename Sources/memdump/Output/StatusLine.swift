internal import Images
internal import Kernel
internal import Predump
internal import Synchronization

/// How far a dump is, for who asks by SIGUSR1 or over the control socket.
final class StatusLine: Sendable {
  /// What the dump is at.
  enum Phase: String, Encodable, Sendable { case attaching, live, freezing, writing }

  /// How far it is.
  struct State: Encodable, Sendable {
    var phase = Phase.attaching
    var round = 0
    var pagesDone: UInt64 = 0
    var pagesExpected: UInt64 = 0
    var roundsComplete = 0
    /// Written since the last complete round.
    var pagesPending: UInt64 = 0
    var elapsedNs: UInt64 = 0
    /// What is done besides rounds.
    var step: String?
  }

  private let began = MonotonicClock.now
  private let current = Mutex(State())

  /// Takes note of an event.
  func note(_ event: PredumpEvent) {
    current.withLock { state in
      switch event {
      case .attached: (state.phase, state.round) = (.live, 1)
      case .progress(let report):
        (state.phase, state.round) = (.live, report.round)
        state.pagesDone = report.pagesDone
        state.pagesExpected = max(report.pagesExpected, report.pagesDone)
      case .roundFinished(let report):
        // After a freeze whose round was lost, too.
        if report.kind == .live { state.phase = .live }
        state.roundsComplete = report.index
        state.pagesPending = report.pendingPages
        (state.round, state.pagesDone, state.pagesExpected) = (
          report.index + 1, 0, report.pendingPages
        )
      case .freezePredicted: state.phase = .freezing
      case .thawed: state.phase = .writing
      case .memberChanged, .warning: break
      }
    }
  }

  /// How far it is now.
  var state: State {
    var state = current.withLock { $0 }
    state.elapsedNs = MonotonicClock.now - began
    return state
  }

  /// Takes note of what is done now.
  func note(_ text: String) { current.withLock { $0.step = text } }

  /// One line.
  var text: String {
    let state = state
    let what =
      if let step = state.step { step } else { Self.text(state) }
    return "memdump: after \(Units.duration(state.elapsedNs)): \(what)\n"
  }

  private static func text(_ state: State) -> String {
    switch state.phase {
    case .attaching: "attaching"
    case .freezing: "freezing"
    case .writing: "thawed, writing the last round"
    case .live where state.pagesDone == 0 && state.round > 1:
      "round \(state.roundsComplete) is complete, "
        + "\(Units.count(state.pagesPending, "page")) written meanwhile"
    case .live:
      "round \(state.round), \(Units.pages(state.pagesDone)) of "
        + "\(Units.pages(state.pagesExpected)) pages"
    }
  }
}
