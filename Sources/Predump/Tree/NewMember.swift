internal import Kernel

/// Whether a descendant of the target can be dumped with it.
enum NewMember {
  /// What is to be done with it.
  enum Verdict: Equatable {
    /// It can be tracked.
    case fit
    /// It runs in its parent's memory until it calls execve (vfork): not yet.
    case later
    /// It is no process any more, and left out.
    case left(String)
  }

  /// Judges by what `/proc` tells; touches nothing.
  ///
  /// - Throws: `.unsuitableTarget` or `.permission` if it can never be tracked.
  static func judge(_ entry: ProcessTree.Entry) throws(PredumpError) -> Verdict {
    // Without these it has ended.
    guard let process = try? TargetProcess(pid: entry.pid) else { return .later }
    guard let state = try? process.stat().state else { return .later }
    if state == "Z" || state == "X" {
      let threads = (try? process.liveThread()) ?? nil
      if threads == nil { return .left("has ended and was not reaped: it is left out") }
    }
    if let shares = try? process.sharesMemory(with: entry.parent), shares { return .later }
    let outcome = TargetChecks(pid: entry.pid, privileges: PrivilegeChecks()).run()
    guard let failure = outcome.findings.compactMap(\.failure).first else { return .fit }
    if case .targetGone = failure { return .later }
    if process.hasExited { return .later }
    throw failure
  }

  /// The kernel shows no memory of such a process under its own id, and CRIU cannot restore it.
  static func leaderless(_ pid: Int32) -> PredumpError {
    .unsuitableTarget(
      pid: pid, reason: "its first thread has ended while others run on; end it, or dump it not")
  }

  /// As `judge`, for the error alone.
  static func check(_ entry: ProcessTree.Entry) throws(PredumpError) { _ = try judge(entry) }
}
