internal import Glibc
internal import Kernel
internal import SystemPackage

/// A process that stands still by SIGSTOP after a freeze, traced by nobody. Dropping it lets the
/// process run, if the stop was ours.
package struct StoppedProcess: ~Copyable {
  private let target: TargetProcess
  private let guardian: ProcessGuardian
  private let began: UInt64
  /// False if the process was stopped before we came.
  private let isOurStop: Bool
  private var isOver = false

  init(
    _ target: borrowing TargetProcess, _ guardian: ProcessGuardian, began: UInt64, isOurStop: Bool
  ) throws(TraceError) {
    let own: TargetProcess
    do throws(KernelError) { own = try TargetProcess(pid: target.pid) } catch {
      throw .gone(pid: target.pid)
    }
    if own.startTicks != guardian.startTicks { throw .gone(pid: target.pid) }
    self.target = own
    self.guardian = guardian
    self.began = began
    self.isOurStop = isOurStop
  }

  deinit {
    if isOver || !isOurStop { return }
    try? target.send(signal: SIGCONT)
    try? guardian.setContinues(false)
  }

  /// Waits until every thread shows as stopped: they run into the stop by themselves.
  borrowing func waitForThreads(timeoutNanoseconds: UInt64) throws(TraceError) {
    let deadline = MonotonicClock.now + timeoutNanoseconds
    while let tid = try runningThread() {
      if target.hasExited { throw .gone(pid: target.pid) }
      if MonotonicClock.now > deadline {
        throw .notStopping(tid: tid, milliseconds: timeoutNanoseconds / 1_000_000)
      }
      MonotonicClock.pause(nanoseconds: 50_000)
    }
  }

  /// Ends the stop. A process that somebody ended meanwhile, as `criu dump` does, is no error.
  ///
  /// - Returns: nanoseconds from the begin of the freeze to now.
  package consuming func release(leaving state: LeaveState) throws(TraceError) -> UInt64 {
    isOver = true
    do throws(KernelError) {
      switch state {
      case .running: if isOurStop { try target.send(signal: SIGCONT) }
      case .stopped: break
      case .killed: try target.send(signal: SIGKILL)
      }
    } catch {
      // The guardian still tries when we end.
      if error.errno != .noSuchProcess { throw .kernel(error) }
    }
    let nanoseconds = MonotonicClock.now - began
    do throws(KernelError) { try guardian.setContinues(false) } catch { throw .kernel(error) }
    return nanoseconds
  }

  private borrowing func runningThread() throws(TraceError) -> Int32? {
    do throws(KernelError) {
      for tid in try target.threadIDs() {
        guard let bytes = try? target.read("task/\(tid)/stat") else { continue }
        // t: somebody traces it already.
        if !["T", "t", "Z", "X"].contains(try ProcessStat(parsing: bytes).state) { return tid }
      }
      return nil
    } catch { throw .gone(pid: target.pid) }
  }
}
