internal import Glibc

/// Instants at which memdump's death would be worst; tests let it die there.
package enum FaultPoint: String, CaseIterable, Sendable {
  // Of the injected call, in order.
  case afterSeize, afterInterrupt, afterStop, afterFrame, afterRegisters, afterMask, insideCall
  /// Only where the process has no descriptor free.
  case withRoom
  case afterCall, beforeClose, insideClose, afterClose, beforePutBack, afterPutBack
  // Of the rounds.
  case midRound, beforeRename, afterRename, afterRecord
  // Of the freeze and the last round.
  case midFreeze, afterFreeze, midFrozenCopy, beforeThaw, afterThaw
  case beforeFinalRename, afterFinalRename
}

/// Where memdump is to die, or a test to act, if anywhere; only in a debug build.
package struct FaultPlan: Sendable {
  private let point: FaultPoint?
  private let action: @Sendable () -> Void

  /// Nowhere.
  package static let none = FaultPlan(at: nil) {}

  /// At each passage of `point`, on the thread that passes.
  package init(at point: FaultPoint?, action: @escaping @Sendable () -> Void) {
    self.point = point
    self.action = action
  }

  /// What the environment variable `MEMDUMP_FAULT` names, in a debug build.
  package static func fromEnvironment() -> FaultPlan {
    #if DEBUG
      guard let text = getenv("MEMDUMP_FAULT") else { return .none }
      return FaultPlan(at: FaultPoint(rawValue: String(cString: text))) { kill(getpid(), SIGKILL) }
    #else
      return .none
    #endif
  }

  /// Does what the plan says, if it says here.
  @inline(__always) package func reach(_ point: FaultPoint) {
    #if DEBUG
      if point == self.point { action() }
    #endif
  }
}
