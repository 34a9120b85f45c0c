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

  private let orders = BlockingQueue<LeaveState>()
  private let reports = BlockingQueue<Result<Report, TraceError>>()
  private let thread: OSThread

  private struct Report: Sendable {
    var began: UInt64
    var ended: UInt64
    var threadCount: Int
  }

  /// Stops every thread of `target`, also those born meanwhile.
  ///
  /// - Parameter timeoutNanoseconds: after which everything runs on and `.notStopping` is thrown.
  package init(freezing target: borrowing TargetProcess, timeoutNanoseconds: UInt64)
    throws(TraceError)
  {
    let (pid, startTicks) = (target.pid, target.startTicks)
    let (orders, reports) = (self.orders, self.reports)
    let thread: OSThread
    do throws(KernelError) {
      thread = try OSThread(name: "memdump-freeze") {
        Self.hold(pid, startTicks, timeoutNanoseconds, orders: orders, reports: reports)
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
    orders.put(state)
    switch reports.take() {
    case .success(let report)?: return report.ended - began
    case .failure(let error)?: throw error
    case nil: return MonotonicClock.now - began
    }
  }

  /// The tracer thread's life: stop all, report, wait for the order, let all go, report.
  private static func hold(
    _ pid: Int32, _ startTicks: UInt64, _ timeout: UInt64, orders: BlockingQueue<LeaveState>,
    reports: BlockingQueue<Result<Report, TraceError>>
  ) {
    defer { reports.close() }
    do throws(TraceError) {
      let target: TargetProcess
      do throws(KernelError) { target = try TargetProcess(pid: pid) } catch { throw .gone(pid: pid) }
      if target.startTicks != startTicks { throw .gone(pid: pid) }
      let began = MonotonicClock.now
      var held = HeldThreads(deadline: began + timeout, allowedMilliseconds: timeout / 1_000_000)
      try held.stopAll(of: target)
      let stopped = Report(began: began, ended: MonotonicClock.now, threadCount: held.count)
      reports.put(.success(stopped))
      let order = orders.take() ?? .running
      do throws(KernelError) {
        switch order {
        case .running: break
        // Queued before the threads are let go, so that none of them runs an instruction.
        case .stopped: try target.send(signal: SIGSTOP)
        case .killed: try target.send(signal: SIGKILL)
        }
      } catch {
        held.letGo()
        throw .kernel(error)
      }
      held.letGo()
      if order == .stopped { awaitStop(of: target, deadline: MonotonicClock.now + timeout) }
      reports.put(
        .success(Report(began: began, ended: MonotonicClock.now, threadCount: held.count)))
    } catch { reports.put(.failure(error)) }
  }
}

/// Waits until job control holds every thread, which each of them still has to notice: whoever
/// looks next is to see a stopped process.
private func awaitStop(of target: borrowing TargetProcess, deadline: UInt64) {
  while MonotonicClock.now < deadline {
    do throws(KernelError) {
      var isStopped = true
      for tid in try target.threadIDs() {
        let state = try ProcessStat(parsing: try target.read("task/\(tid)/stat")).state
        isStopped = isStopped && ["T", "Z", "X"].contains(state)
      }
      if isStopped { return }
    } catch { return }
    MonotonicClock.pause(nanoseconds: 50_000)
  }
}

/// The stopped threads of one process, owned by the OS thread that traces them.
private struct HeldThreads {
  let deadline: UInt64
  let allowedMilliseconds: UInt64
  private var threads: [Int32: Held] = [:]

  /// Arrays cannot hold values that have one owner: a box that has one.
  private final class Held {
    let thread: TracedThread
    init(_ thread: consuming TracedThread) { self.thread = thread }
  }

  init(deadline: UInt64, allowedMilliseconds: UInt64) {
    self.deadline = deadline
    self.allowedMilliseconds = allowedMilliseconds
  }

  var count: Int { threads.count }

  mutating func stopAll(of target: borrowing TargetProcess) throws(TraceError) {
    // A thread that still runs may start another one: look until there is none that is new.
    while true {
      let fresh = try newThreads(of: target)
      if fresh.isEmpty { break }
      for tid in fresh {
        do throws(TraceError) {
          let thread = try TracedThread(seizing: tid)
          try thread.interrupt()
          threads[tid] = Held(thread)
        } catch {
          guard Self.isGone(error, tid, target) else { throw error }
        }
      }
      for tid in fresh {
        guard let held = threads[tid] else { continue }
        do throws(TraceError) {
          try held.thread.waitForEventStop(
            deadline: deadline, allowedMilliseconds: allowedMilliseconds)
          _ = try held.thread.hideInterruption(target)
        } catch {
          guard case .gone = error else { throw error }
          threads[tid] = nil
        }
      }
    }
    if threads.isEmpty { throw .gone(pid: target.pid) }
  }

  mutating func letGo() { threads.removeAll() }

  private func newThreads(of target: borrowing TargetProcess) throws(TraceError) -> [Int32] {
    do throws(KernelError) {
      return try target.threadIDs().filter { tid in
        threads[tid] == nil && !Self.isDead(tid, target)
      }
    } catch { throw .gone(pid: target.pid) }
  }

  private static func isDead(_ tid: Int32, _ target: borrowing TargetProcess) -> Bool {
    do throws(KernelError) {
      let state = try ProcessStat(parsing: try target.read("task/\(tid)/stat")).state
      return state == "Z" || state == "X"
    } catch { return true }
  }

  /// Whether the thread ended while we reached for it.
  private static func isGone(_ error: TraceError, _ tid: Int32, _ target: borrowing TargetProcess)
    -> Bool
  {
    if case .gone = error { return true }
    return isDead(tid, target)
  }
}
