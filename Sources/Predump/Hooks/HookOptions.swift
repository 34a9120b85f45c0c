/// Commands of the user's that are run during a dump, by `/bin/sh -c`.
public struct HookOptions: Sendable {
  /// Run while the process stands still, after its last pages were copied to memory and before the
  /// frozen round is complete on disk. The process, and its descendants if they are dumped with it,
  /// are stopped by SIGSTOP then and traced by nobody.
  public var onFrozen: String?
  /// Run at every `HookEvent`.
  public var onEvent: String?
  /// After which a command counts as failed and is ended (ns).
  public var timeoutNanoseconds: UInt64 = 60_000_000_000

  /// Events of which the command is not told, because somebody else tells of more than the dump.
  package var omitted: Set<HookEvent> = []

  /// No commands.
  public init() {}

  var isEmpty: Bool { onFrozen == nil && onEvent == nil }
}

/// What `HookOptions.onEvent` is told of. The raw value is what the command sees in MEMDUMP_EVENT.
public enum HookEvent: String, Sendable, CaseIterable {
  /// A round begins; nothing of it exists.
  case preRound = "pre-round"
  /// A round is complete on disk.
  case postRound = "post-round"
  /// The live rounds are over, and the freeze is next.
  case converged
  /// The process stands still, and its last pages are copied. memdump holds it by ptrace.
  case frozen
  /// The process is what it was to be after the freeze.
  case thawed
  /// The dump is over and good.
  case complete
  /// The dump is over and failed.
  case failed

  /// Whether a command that fails ends the dump: there is something left to end.
  var isVeto: Bool {
    switch self {
    case .preRound, .postRound, .converged, .frozen: true
    case .thawed, .complete, .failed: false
    }
  }
}
