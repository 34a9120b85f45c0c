internal import Images
internal import Kernel
internal import Predump
internal import Synchronization

/// What is noted of the freeze while the rounds' engine goes through it: when, and who guards the
/// processes from then on.
final class FrozenMoment: Sendable {
  private struct State {
    var report: FreezeReport?
    var copied: UInt64 = 0
    var guarded: GuardBox?
    var pids: [Int32] = []
    var failure: KernelError?
  }

  private final class GuardBox: Sendable {
    let watch: ProcessGuard
    init(_ watch: consuming ProcessGuard) { self.watch = watch }
  }

  private let root: Int32
  private let includesDescendants: Bool
  private let state = Mutex(State())

  init(of options: PredumpOptions) {
    root = options.pid
    includesDescendants = options.includesDescendants
  }

  /// Called on the engine's thread, while it holds the processes.
  func note(_ event: PredumpEvent) {
    switch event {
    case .freezePredicted where !includesDescendants: guardProcesses([root])
    case .thawed(let report):
      state.withLock {
        $0.report = report
        $0.copied = MonotonicClock.now
      }
    case .roundFinished(let report) where report.kind == .frozen && includesDescendants:
      // All stand still: none is missed.
      let others = (try? ProcessTree.descendants(of: root).map(\.pid)) ?? []
      guardProcesses([root] + others)
    default: break
    }
  }

  private func guardProcesses(_ pids: [Int32]) {
    // Of a freeze that came to nothing: its guard would let the process go on at its own end.
    dismiss()
    // Made before they are left stopped: our death must not leave them so.
    let result = Result { () throws(KernelError) in GuardBox(try ProcessGuard(pids)) }
    state.withLock {
      $0.pids = pids
      switch result {
      case .success(let box): $0.guarded = box
      case .failure(let error): $0.failure = error
      }
    }
  }

  /// Who stands still, the target first.
  var pids: [Int32] { state.withLock { $0.pids } }

  /// What the freeze took until everything was copied, and when that was.
  var copied: (report: FreezeReport?, at: UInt64) { state.withLock { ($0.report, $0.copied) } }

  /// Why the processes are not guarded, if they are not.
  var failure: KernelError? { state.withLock { $0.failure } }

  /// From now on our death lets nothing go on.
  func hold() throws(KernelError) { try state.withLock { $0.guarded }?.watch.hold() }

  /// Guards no more.
  func dismiss() {
    let box = state.withLock { state in
      defer { state.guarded = nil }
      return state.guarded
    }
    box?.watch.release()
  }
}
