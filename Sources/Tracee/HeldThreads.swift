internal import Kernel

/// The stopped threads of one process, owned by the OS thread that traces them.
struct HeldThreads {
  let deadline: UInt64
  let allowedMilliseconds: UInt64
  let faults: FaultPlan
  let except: Int32
  private var threads: [Int32: Held] = [:]
  /// Threads that were listed and could not be seized. The number may be another thread's by now.
  private var unreachable: Set<Int32> = []
  /// Whether job control had stopped the process already.
  private(set) var wasStopped = false

  /// Arrays cannot hold values that have one owner: a box that has one.
  private final class Held {
    let thread: TracedThread
    init(_ thread: consuming TracedThread) { self.thread = thread }
  }

  /// - Parameter except: a thread that is held otherwise; 0 for none.
  init(deadline: UInt64, allowedMilliseconds: UInt64, faults: FaultPlan, except: Int32 = 0) {
    self.deadline = deadline
    self.allowedMilliseconds = allowedMilliseconds
    self.faults = faults
    self.except = except
  }

  /// How many threads are held.
  var count: Int { threads.count }

  /// Stops every thread, also those born meanwhile.
  mutating func stopAll(of target: borrowing TargetProcess) throws(TraceError) {
    // A thread that still runs may start another one: look until there is none that is new.
    while true {
      let fresh = try newThreads(of: target)
      if fresh.isEmpty { break }
      var failure: TraceError?
      for tid in fresh {
        do throws(TraceError) {
          let thread = try TracedThread(seizing: tid)
          try thread.interrupt()
          threads[tid] = Held(thread)
        } catch {
          if Self.isGone(error, tid, target) {
            unreachable.insert(tid)
            continue
          }
          failure = error
          break
        }
      }
      faults.reach(.midFreeze)
      try waitForStops(fresh)
      if let failure { throw failure }
    }
    if threads.isEmpty && except == 0 { throw .gone(pid: target.pid) }
  }

  /// Waits for all of them, even when one does not stop in time: those that do were interrupted, and
  /// must not see it.
  private mutating func waitForStops(_ fresh: [Int32]) throws(TraceError) {
    var failure: TraceError?
    for tid in fresh {
      guard let held = threads[tid] else { continue }
      do throws(TraceError) {
        let stop = try held.thread.waitForEventStop(
          deadline: deadline, allowedMilliseconds: allowedMilliseconds)
        if stop == .jobControl { wasStopped = true }
        try held.thread.hideInterruption(stop)
      } catch {
        threads[tid] = nil
        unreachable.insert(tid)
        if case .gone = error { continue }
        failure = failure ?? error
      }
    }
    if let failure { throw failure }
  }

  /// Lets all of them run.
  mutating func letGo() { threads.removeAll() }

  private func newThreads(of target: borrowing TargetProcess) throws(TraceError) -> [Int32] {
    do throws(KernelError) {
      return try target.threadIDs().filter { tid in
        // Looking at every thread before it is stopped would lengthen the freeze.
        tid != except && threads[tid] == nil
          && !(unreachable.contains(tid) && Self.isDead(tid, target))
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
