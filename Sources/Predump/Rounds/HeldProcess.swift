internal import Kernel
internal import Tracee

/// A frozen process that outlives its round's copy: it is released once, or runs when this is
/// dropped. It is held by ptrace, or handed over to a command of the user's.
final class HeldProcess {
  /// The processes that stand still, the target first.
  let pids: [Int32]
  private let began: UInt64
  private var frozen: FrozenProcess?
  private var stopped: StoppedProcess?

  init(_ frozen: consuming FrozenProcess, of pid: Int32) {
    pids = [pid] + frozen.descendants.map(\.pid)
    began = frozen.began
    self.frozen = consume frozen
  }

  /// Time since the first thread was asked to stop (ns).
  var nanoseconds: UInt64 { MonotonicClock.now - began }

  /// Lets go of the process without it running an instruction: from now on SIGSTOP holds it.
  func handOver(guardian: ProcessGuardian, timeoutNanoseconds: UInt64) throws(TraceError) {
    guard let frozen = frozen.take() else { return }
    stopped = try frozen.handOver(guardian: guardian, timeoutNanoseconds: timeoutNanoseconds)
  }

  /// Ends the freeze; does nothing after the first time.
  ///
  /// - Returns: nanoseconds from the first thread asked to stop to the last one let go.
  @discardableResult
  func release(leaving state: LeaveState) throws(TraceError) -> UInt64 {
    if let stopped = stopped.take() { return try stopped.release(leaving: state) }
    guard let frozen = frozen.take() else { return 0 }
    return try frozen.thaw(leaving: state)
  }
}
