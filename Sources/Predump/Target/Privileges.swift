internal import Kernel

/// What memdump gives up once the target is tracked. Capabilities belong to each thread: the engine's
/// go here, and with them those of the threads that it starts from then on.
enum Privileges {
  /// What rounds and the freeze take: to open `/proc/PID` files and trace other users' threads, to
  /// signal them, to be fast while they stand still, to write into others' directories.
  private static let needed: Capabilities = [
    .files, .signalOthers, .traceOthers, .raisePriority, .checkpoint,
  ]

  /// Gives up all but what is needed, on the calling thread.
  ///
  /// Without CAP_SYS_PTRACE nothing is given up: a tracer without it must hold every capability that
  /// its tracee holds (ptrace(2)).
  ///
  /// - Parameter attachesMore: whether processes are still to be attached to: to suspend a seccomp
  ///   filter of theirs, or to raise their limit of descriptors for a moment, takes more.
  static func reduce(attachesMore: Bool) {
    guard let status = try? ThisThread.status() else { return }
    let held = Capabilities(rawValue: status.effectiveCapabilities)
    guard held.contains(.traceOthers) else { return }
    // /proc/PID/map_files can be opened with either.
    var kept = held.contains(.checkpoint) ? needed : needed.union(.administer)
    if attachesMore { kept.formUnion([.administer, .raiseLimits]) }
    // It only fails where there is nothing to give up.
    try? ThisThread.keepCapabilities(kept)
  }
}
