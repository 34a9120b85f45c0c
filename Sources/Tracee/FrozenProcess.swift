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

/// A process whose threads all stand still, with its descendants if that was asked for. Dropping it
/// lets them run.
///
/// The stops belong to an OS thread of their own: if memdump dies, or a thread of the target will
/// not stop in time, the end of that thread makes the kernel detach, and the process runs.
package struct FrozenProcess: ~Copyable {
  /// From the first thread asked to stop to the last one stopped (ns).
  package let freezingNanoseconds: UInt64
  /// How many threads stand still.
  package let threadCount: Int
  /// The descendants that stand still, parents before their children.
  package let descendants: [Descendant]
  /// When the first thread was asked to stop (CLOCK_MONOTONIC, ns).
  package let began: UInt64

  private static let stopLookNanoseconds: UInt64 = 100_000_000

  private let orders = BlockingQueue<LeaveState>()
  private let reports = BlockingQueue<Result<Report, TraceError>>()
  private let thread: OSThread

  /// A process that stands still besides the target.
  package struct Descendant: Sendable, Equatable {
    /// Its process id.
    package let pid: Int32
    /// Its parent's process id.
    package let parent: Int32
    /// Clock ticks from boot to its start.
    package let startTicks: UInt64
  }

  private struct Report: Sendable {
    var descendants: [Descendant] = []
    var began: UInt64
    var ended: UInt64
    var threadCount: Int
  }

  /// Stops every thread of `target`, also those born meanwhile.
  ///
  /// Limits: a blocking write that is partly done returns early (`DivisibleCall`), as after SIGSTOP;
  /// if memdump is killed in the microseconds between a thread's stop and the look at its registers,
  /// a call that the kernel does not restart returns EINTR (`TracedThread.hideInterruption`).
  ///
  /// - Parameters:
  ///   - descendants: whether the processes that descend from `target` are stopped, too.
  ///   - timeoutNanoseconds: after which everything runs on and `.notStopping` is thrown.
  package init(
    freezing target: borrowing TargetProcess, withDescendants includesDescendants: Bool = false,
    timeoutNanoseconds: UInt64, faults: FaultPlan = .none
  ) throws(TraceError) {
    let (pid, startTicks) = (target.pid, target.startTicks)
    let (orders, reports) = (self.orders, self.reports)
    let thread: OSThread
    do throws(KernelError) {
      thread = try OSThread(name: "memdump-freeze") {
        Self.hold(
          pid, startTicks, includesDescendants, timeoutNanoseconds, faults, orders: orders,
          reports: reports)
      }
    } catch { throw .kernel(error) }
    switch reports.take() {
    case .success(let report)?:
      began = report.began
      freezingNanoseconds = report.ended - report.began
      threadCount = report.threadCount
      descendants = report.descendants
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

  private static func send(
    _ signal: CInt, to target: borrowing TargetProcess, _ descendants: [HeldThreads.Descendant]
  ) throws(KernelError) {
    try target.send(signal: signal)
    for member in descendants {
      do throws(KernelError) { try member.process.send(signal: signal) } catch {
        // One that was killed meanwhile needs no signal any more.
        if !member.process.hasExited { throw error }
      }
    }
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
    _ pid: Int32, _ startTicks: UInt64, _ includesDescendants: Bool, _ timeout: UInt64,
    _ faults: FaultPlan,
    orders: BlockingQueue<LeaveState>, reports: BlockingQueue<Result<Report, TraceError>>
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
      if includesDescendants {
        try held.stopTree(of: target)
      } else {
        try held.stopAll(of: target)
      }
      let descendants = held.descendants.map {
        Descendant(pid: $0.process.pid, parent: $0.parent, startTicks: $0.process.startTicks)
      }
      let stopped = Report(
        descendants: descendants, began: began, ended: MonotonicClock.now, threadCount: held.count)
      reports.put(.success(stopped))
      let order = orders.take() ?? .running
      do throws(KernelError) {
        switch order {
        case .running: break
        // Queued before the threads are let go, so that none of them runs an instruction.
        case .stopped: try Self.send(SIGSTOP, to: target, held.descendants)
        case .killed: try Self.send(SIGKILL, to: target, held.descendants)
        }
      } catch {
        held.letGo()
        throw .kernel(error)
      }
      let threadCount = held.count
      held.letGo()
      let ended = MonotonicClock.now
      if order == .stopped {
        Self.waitUntilStopped(target)
        for member in held.descendants { Self.waitUntilStopped(member.process) }
      }
      reports.put(.success(Report(began: began, ended: ended, threadCount: threadCount)))
    } catch { reports.put(.failure(error)) }
  }
}
