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

  private let pid: Int32
  private let orders = BlockingQueue<Order>()
  private let reads = BlockingQueue<Int>()
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

  /// What the tracer thread is asked to do.
  private enum Order: Sendable {
    case leave(LeaveState)
    /// To be stopped by SIGSTOP instead of by us; the guardian undoes that if we die.
    case handOver(ProcessGuardian)
    /// To read of process `pid` at `address` into the memory at `buffer`, whose owner waits for it.
    case read(pid: Int32, address: UInt64, buffer: UInt, byteCount: Int)
  }

  private struct Report: Sendable {
    var descendants: [Descendant] = []
    var began: UInt64
    var ended: UInt64
    var threadCount: Int
    /// Who was handed over, the target first.
    var stopped: [StoppedProcess.Member] = []
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
    let (orders, reads, reports) = (self.orders, self.reads, self.reports)
    let thread: OSThread
    do throws(KernelError) {
      thread = try OSThread(name: "memdump-freeze") {
        defer { reads.close() }
        Self.hold(
          pid, startTicks, includesDescendants, timeoutNanoseconds, faults, orders: orders,
          reads: reads, reports: reports)
      }
    } catch { throw .kernel(error) }
    switch reports.take() {
    case .success(let report)?:
      self.pid = pid
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

  /// For `ProcessMemory.readUnreadable`: whole pages of `pid`, which stands still, read by the thread
  /// that traces it. To be called by one thread at a time; after the thaw it reads nothing.
  package func tracerReads(of pid: Int32) -> ProcessMemory.Substitute {
    let (orders, reads) = (self.orders, self.reads)
    return { address, buffer in
      guard let base = buffer.baseAddress else { return 0 }
      orders.put(
        .read(
          pid: pid, address: address, buffer: UInt(bitPattern: base), byteCount: buffer.count))
      return reads.take() ?? 0
    }
  }

  /// Ends the freeze.
  ///
  /// - Throws: `.notStopping` if a process that is to be left stopped does not stop in time; it runs
  ///   then.
  /// - Returns: nanoseconds from the first thread asked to stop to the last one let go.
  package consuming func thaw(leaving state: LeaveState) throws(TraceError) -> UInt64 {
    orders.put(.leave(state))
    switch reports.take() {
    case .success(let report)?: return report.ended - began
    case .failure(let error)?: throw error
    case nil: return MonotonicClock.now - began
    }
  }

  private static func kill(_ processes: [HeldThreads.Descendant]) throws(TraceError) {
    for member in processes {
      do throws(KernelError) { try member.process.send(signal: SIGKILL) } catch {
        // A descendant that was killed meanwhile needs no signal any more.
        if member.parent == 0 || !member.process.hasExited { throw .kernel(error) }
      }
    }
  }

  /// Has the processes stop by SIGSTOP.
  ///
  /// - Parameter guardian: undoes it should we be killed.
  /// - Returns: those that are alive, the target first.
  private static func stopAll(
    _ processes: [HeldThreads.Descendant], _ held: inout HeldThreads, _ guardian: ProcessGuardian?,
    timeoutNanoseconds: UInt64
  ) throws(TraceError) -> [StoppedProcess.Member] {
    var stopped: [StoppedProcess.Member] = []
    do throws(KernelError) {
      for member in processes {
        let status: ProcessStatus
        do throws(KernelError) { status = try member.process.status() } catch {
          if member.process.hasExited && (member.parent != 0 || guardian == nil) { continue }
          throw error
        }
        // Somebody else's stop is not ours to end.
        let isOurs = !held.stoppedBefore.contains(member.process.pid) && !status.hasStopPending
        if isOurs { try guardian?.take(member.process) }
        stopped.append(StoppedProcess.Member(process: member, isOurStop: isOurs))
      }
      if stopped.contains(where: \.isOurStop) { try guardian?.setContinues(true) }
    } catch { throw .kernel(error) }
    do throws(TraceError) {
      try held.beginStops(timeoutNanoseconds: timeoutNanoseconds)
    } catch {
      try? StoppedProcess.carryOn(stopped)
      try? guardian?.setContinues(false)
      throw error
    }
    return stopped
  }

  /// Lets go of the threads without any of them running an instruction: from now on the processes
  /// are stopped as by SIGSTOP, so that somebody else can trace them.
  ///
  /// - Parameter guardian: continues the processes should we be killed.
  /// - Throws: `.notStopping` if not all threads are seen stopped in time; all run then.
  package consuming func handOver(
    guardian: ProcessGuardian, timeoutNanoseconds: UInt64
  ) throws(TraceError) -> StoppedProcess {
    let (began, pid) = (began, pid)
    orders.put(.handOver(guardian))
    let report: Report
    switch reports.take() {
    case .success(let done)?: report = done
    case .failure(let error)?: throw error
    case nil: throw .gone(pid: pid)
    }
    let stopped = StoppedProcess(report.stopped, guardian, began: began)
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

  /// Reads for others until the order to let go comes; if nobody is left to give it, that is it.
  private static func serveReads(_ orders: BlockingQueue<Order>, _ reads: BlockingQueue<Int>)
    -> Order
  {
    while let order = orders.take() {
      switch order {
      case .leave, .handOver: return order
      case .read(let pid, let address, let buffer, let byteCount):
        // Valid as long as its owner waits for the answer, which is put last.
        let bytes = UnsafeMutableRawBufferPointer(
          start: UnsafeMutableRawPointer(bitPattern: buffer), count: byteCount)
        reads.put(Self.read(pid, address, bytes))
      }
    }
    return .leave(.running)
  }

  /// - Returns: bytes read; 0 if the page cannot be read even so.
  private static func read(
    _ pid: Int32, _ address: UInt64, _ bytes: UnsafeMutableRawBufferPointer
  ) -> Int {
    do throws(KernelError) {
      let memory = ProcessMemory(file: try TargetProcess(pid: pid).open("mem"))
      guard case .pages(let count) = try memory.readPages(at: address, into: bytes) else {
        return 0
      }
      return count * Int(pageBytes)
    } catch { return 0 }
  }

  /// The tracer thread's life: stop all, report, wait for the order, let all go, report.
  private static func hold(
    _ pid: Int32, _ startTicks: UInt64, _ includesDescendants: Bool, _ timeout: UInt64,
    _ faults: FaultPlan,
    orders: BlockingQueue<Order>, reads: BlockingQueue<Int>,
    reports: BlockingQueue<Result<Report, TraceError>>
  ) {
    defer { reports.close() }
    do throws(TraceError) {
      let target: HeldThreads.Descendant
      do throws(KernelError) {
        target = HeldThreads.Descendant(try TargetProcess(pid: pid), parent: 0)
      } catch { throw .gone(pid: pid) }
      if target.process.startTicks != startTicks { throw .gone(pid: pid) }
      // Threads that are let go compete with this one, which still holds the others.
      ThisThread.preferIfPermitted()
      let began = MonotonicClock.now
      var held = HeldThreads(
        deadline: began + timeout, allowedMilliseconds: timeout / 1_000_000, faults: faults)
      if includesDescendants {
        try held.stopTree(of: target.process)
      } else {
        try held.stopAll(of: target.process)
      }
      let descendants = held.descendants.map {
        Descendant(pid: $0.process.pid, parent: $0.parent, startTicks: $0.process.startTicks)
      }
      let stopped = Report(
        descendants: descendants, began: began, ended: MonotonicClock.now, threadCount: held.count)
      reports.put(.success(stopped))
      let order = Self.serveReads(orders, reads)
      var handedOver: [StoppedProcess.Member] = []
      do throws(TraceError) {
        let all = [target] + held.descendants
        switch order {
        case .leave(.running), .read: break
        // Begun before the threads are let go, so that none of them runs an instruction.
        case .leave(.stopped):
          _ = try Self.stopAll(all, &held, nil, timeoutNanoseconds: timeout)
        case .leave(.killed): try Self.kill(all)
        case .handOver(let guardian):
          handedOver = try Self.stopAll(all, &held, guardian, timeoutNanoseconds: timeout)
        }
      } catch {
        held.letGo()
        throw error
      }
      let threadCount = held.count
      held.letGo()
      let ended = MonotonicClock.now
      if case .leave(.stopped) = order {
        Self.waitUntilStopped(target.process)
        for member in held.descendants { Self.waitUntilStopped(member.process) }
      }
      reports.put(
        .success(
          Report(began: began, ended: ended, threadCount: threadCount, stopped: handedOver)))
    } catch { reports.put(.failure(error)) }
  }
}
