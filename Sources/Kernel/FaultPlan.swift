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

/// Where memdump is to die, if anywhere; only a debug build ever does.
package struct FaultPlan: Sendable {
  private let point: FaultPoint?

  /// Nowhere.
  package static let none = FaultPlan(point: nil)

  private init(point: FaultPoint?) { self.point = point }

  /// What the environment variable `MEMDUMP_FAULT` names, in a debug build.
  package static func fromEnvironment() -> FaultPlan {
    #if DEBUG
      guard let text = getenv("MEMDUMP_FAULT") else { return .none }
      return FaultPlan(point: FaultPoint(rawValue: String(cString: text)))
    #else
      return .none
    #endif
  }

  /// Dies by SIGKILL if the plan says here.
  @inline(__always) package func reach(_ point: FaultPoint) {
    #if DEBUG
      if point == self.point { kill(getpid(), SIGKILL) }
    #endif
  }
}
