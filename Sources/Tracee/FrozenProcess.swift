internal import Glibc
package import Kernel

/// What a process is to be when a freeze ends.
public enum LeaveState: String, Sendable, CaseIterable {
  /// It runs on.
  case running
  /// It is stopped as by SIGSTOP, without having run in between.
  case stopped
  /// It is ended by SIGKILL, without having run in between.
  case killed
}

/// A process whose threads all stand still. Dropping it lets them run.
///
/// The stops belong to an OS thread of their own: if memdump dies, or a thread of the target will
/// not stop in time, the end of that thread makes the kernel detach, and the process runs.
package struct FrozenProcess: ~Copyable {
  /// From the first thread asked to stop to the last one stopped (ns).
  package let freezingNanoseconds: UInt64
  /// How many threads stand still.
  package let threadCount: Int
  /// When the first thread was asked to stop (CLOCK_MONOTONIC, ns).
  package let began: UInt64

  private static let stopLookNanoseconds: UInt64 = 100_000_000

  private enum Order: Sendable {
    case leave(LeaveState)
    /// To be stopped by SIGSTOP instead of by us; the guardian undoes that if we die.
    case handOver(ProcessGuardian)
  }

  private let orders = BlockingQueue<Order>()
  private let reports = BlockingQueue<Result<Report, TraceError>>()
  private let thread: OSThread

  private struct Report: Sendable {
    var began: UInt64
    var ended: UInt64
    var threadCount: Int
    var wasStopped = false
  }

  /// Stops every thread of `target`, also those born meanwhile.
  ///
  /// Limits: a blocking write that is partly done returns early (`DivisibleCall`), as after SIGSTOP;
  /// if memdump is killed in the microseconds between a thread's stop and the look at its registers,
  /// a call that the kernel does not restart returns EINTR (`TracedThread.hideInterruption`).
  ///
  /// - Parameter timeoutNanoseconds: after which everything runs on and `.notStopping` is thrown.
  package init(
    freezing target: borrowing TargetProcess, timeoutNanoseconds: UInt64,
    faults: FaultPlan = .none
  ) throws(TraceError) {
    let (pid, startTicks) = (target.pid, target.startTicks)
    let (orders, reports) = (self.orders, self.reports)
    let thread: OSThread
    do throws(KernelError) {
      thread = try OSThread(name: "memdump-freeze") {
        Self.hold(pid, startTicks, timeoutNanoseconds, faults, orders: orders, reports: reports)
      }
    } catch { throw .kernel(error) }
    switch reports.take() {
    case .success(let report)?:
      began = report.began
      freezingNanoseconds = report.ended - report.began
      threadCount = report.threadCount
      self.thread = thread
    case .failure(let error)?:
      thread.join()
      throw error
    case nil:
      thread.join()
      throw .gone(pid: pid)
    }
  }

  // Closing the queue is the order to let everything run.
  deinit { orders.close() }

  /// Ends the freeze.
  ///
  /// - Returns: nanoseconds from the first thread asked to stop to the last one let go.
  package consuming func thaw(leaving state: LeaveState) throws(TraceError) -> UInt64 {
    orders.put(.leave(state))
    switch reports.take() {
    case .success(let report)?: return report.ended - began
    case .failure(let error)?: throw error
    case nil: return MonotonicClock.now - began
    }
  }

  /// Lets go of the threads without any of them running an instruction: from now on the process is
  /// stopped as by SIGSTOP, so that somebody else can trace it.
  ///
  /// - Parameter guardian: continues the process should we be killed.
  /// - Throws: `.notStopping` if not all threads are seen stopped in time; the process runs then.
  package consuming func handOver(
    of target: borrowing TargetProcess, guardian: ProcessGuardian, timeoutNanoseconds: UInt64
  ) throws(TraceError) -> StoppedProcess {
    let began = began
    orders.put(.handOver(guardian))
    let report: Report
    switch reports.take() {
    case .success(let done)?: report = done
    case .failure(let error)?: throw error
    case nil: throw .gone(pid: target.pid)
    }
    let stopped = try StoppedProcess(
      target, guardian, began: began, isOurStop: !report.wasStopped)
    try stopped.waitForThreads(timeoutNanoseconds: timeoutNanoseconds)
    return stopped
  }

  /// The threads run into their stop by themselves: a moment later the process shows as stopped.
  private static func waitUntilStopped(_ target: borrowing TargetProcess) {
    let deadline = MonotonicClock.now + stopLookNanoseconds
    while (try? target.stat().state) != "T", !target.hasExited, MonotonicClock.now < deadline {
      MonotonicClock.pause(nanoseconds: 100_000)
    }
  }

  /// The tracer thread's life: stop all, report, wait for the order, let all go, report.
  private static func hold(
    _ pid: Int32, _ startTicks: UInt64, _ timeout: UInt64, _ faults: FaultPlan,
    orders: BlockingQueue<Order>, reports: BlockingQueue<Result<Report, TraceError>>
  ) {
    defer { reports.close() }
    do throws(TraceError) {
      let target: TargetProcess
      do throws(KernelError) { target = try TargetProcess(pid: pid) } catch {
        throw .gone(pid: pid)
      }
      if target.startTicks != startTicks { throw .gone(pid: pid) }
      // Threads that are let go compete with this one, which still holds the others.
      ThisThread.preferIfPermitted()
      let began = MonotonicClock.now
      var held = HeldThreads(
        deadline: began + timeout, allowedMilliseconds: timeout / 1_000_000, faults: faults)
      try held.stopAll(of: target)
      let stopped = Report(began: began, ended: MonotonicClock.now, threadCount: held.count)
      reports.put(.success(stopped))
      let order = orders.take() ?? .leave(.running)
      var wasStopped = held.wasStopped
      do throws(KernelError) {
        switch order {
        case .leave(.running): break
        // Queued before the threads are let go, so that none of them runs an instruction.
        case .leave(.stopped): try target.send(signal: SIGSTOP)
        case .leave(.killed): try target.send(signal: SIGKILL)
        case .handOver(let guardian):
          // Somebody else's stop is not ours to end.
          if try target.status().hasStopPending { wasStopped = true }
          if !wasStopped { try guardian.setContinues(true) }
          try target.send(signal: SIGSTOP)
        }
      } catch {
        held.letGo()
        throw .kernel(error)
      }
      let threadCount = held.count
      held.letGo()
      let ended = MonotonicClock.now
      if case .leave(.stopped) = order { Self.waitUntilStopped(target) }
      reports.put(
        .success(
          Report(began: began, ended: ended, threadCount: threadCount, wasStopped: wasStopped)))
    } catch { reports.put(.failure(error)) }
  }
}
