internal import CLinux
internal import Glibc
internal import Kernel
internal import SystemPackage

/// The stopped threads of a process, or of several, owned by the OS thread that traces them.
struct HeldThreads {
  let deadline: UInt64
  let allowedMilliseconds: UInt64
  let faults: FaultPlan
  let except: Int32
  private var threads: [Int32: Held] = [:]
  /// Threads that were listed and could not be seized. The number may be another thread's by now.
  private var unreachable: Set<Int32> = []
  /// Processes that job control had stopped already.
  private(set) var stoppedBefore: Set<Int32> = []

  /// Descendants whose threads are held, parents before their children.
  private(set) var descendants: [Descendant] = []

  /// A process that is held; arrays cannot hold values that have one owner.
  final class Descendant: Sendable {
    let process: TargetProcess
    /// Its parent's process id; 0 for the target.
    let parent: Int32

    init(_ process: consuming TargetProcess, parent: Int32) {
      self.process = process
      self.parent = parent
    }
  }

  /// Arrays cannot hold values that have one owner: a box that has one.
  private final class Held {
    let thread: TracedThread
    let pid: Int32

    init(_ thread: consuming TracedThread, of pid: Int32) {
      self.thread = thread
      self.pid = pid
    }
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
      let failure = interrupt(fresh, of: target)
      faults.reach(.midFreeze)
      try waitForStops(fresh)
      if let failure { throw failure }
    }
    if threads.isEmpty && except == 0 { throw .gone(pid: target.pid) }
  }

  /// Stops every thread of `target` and of its descendants, also those born meanwhile.
  ///
  /// What stands still starts nothing, so that this comes to an end; `deadline` bounds it all the
  /// same. A vfork child is not stopped before its parent, whose stop waits for it.
  mutating func stopTree(of target: borrowing TargetProcess) throws(TraceError) {
    var known: [Int32: Descendant] = [:]
    let source = ProcessTree.Source.available
    // A list of children can miss one whose sibling ends in that instant: look twice.
    var quietLooks = 0
    var stopsSharers = false
    while quietLooks < 2 {
      if MonotonicClock.now > deadline {
        throw .notStopping(tid: target.pid, milliseconds: allowedMilliseconds)
      }
      var fresh = try newThreads(of: target)
      var failure = interrupt(fresh, of: target)
      var hasWaiting = false
      descendants.removeAll(keepingCapacity: true)
      for entry in try Self.list(target.pid, source) {
        guard let member = Self.member(entry, &known) else { continue }
        if !stopsSharers, !isHeld(member), Self.sharesMemory(member) {
          hasWaiting = true
          continue
        }
        let threads = (try? newThreads(of: member.process)) ?? []
        failure = failure ?? interrupt(threads, of: member.process)
        fresh += threads
        descendants.append(member)
      }
      if !fresh.isEmpty { faults.reach(.midFreeze) }
      try waitForStops(fresh)
      if let failure { throw failure }
      if !fresh.isEmpty {
        quietLooks = 0
      } else if hasWaiting {
        // Their parents stand still: no vfork, but processes that share their memory for good.
        stopsSharers = true
      } else {
        quietLooks += 1
      }
    }
    let own = (try? target.threadIDs()) ?? []
    if !own.contains(where: { threads[$0] != nil }) { throw .gone(pid: target.pid) }
    descendants = descendants.filter { isHeld($0) }
  }

  private static func list(_ pid: Int32, _ source: ProcessTree.Source) throws(TraceError)
    -> [ProcessTree.Entry]
  {
    do throws(KernelError) { return try ProcessTree.descendants(of: pid, from: source) } catch {
      throw .kernel(error)
    }
  }

  /// The process of a list's entry; nil if it has ended.
  private static func member(_ entry: ProcessTree.Entry, _ known: inout [Int32: Descendant])
    -> Descendant?
  {
    if let member = known[entry.pid], !member.process.hasExited, member.parent == entry.parent {
      return member
    }
    guard let process = try? TargetProcess(pid: entry.pid) else { return nil }
    let member = Descendant(process, parent: entry.parent)
    known[entry.pid] = member
    return member
  }

  private static func sharesMemory(_ member: Descendant) -> Bool {
    (try? member.process.sharesMemory(with: member.parent)) ?? false
  }

  private func isHeld(_ member: Descendant) -> Bool {
    let own = (try? member.process.threadIDs()) ?? []
    return own.contains { threads[$0] != nil }
  }

  /// Asks threads to stop.
  ///
  /// - Returns: why one could not be asked; those before it were.
  private mutating func interrupt(_ fresh: [Int32], of target: borrowing TargetProcess)
    -> TraceError?
  {
    for tid in fresh {
      do throws(TraceError) {
        let thread = try TracedThread(seizing: tid)
        try thread.interrupt()
        threads[tid] = Held(thread, of: target.pid)
      } catch {
        if Self.isGone(error, tid, target) {
          unreachable.insert(tid)
          continue
        }
        return error
      }
    }
    return nil
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
        if stop == .jobControl { stoppedBefore.insert(held.pid) }
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

  /// Has every process stop as by SIGSTOP, and lets go of one thread of each, which begins that stop.
  /// The others, when they are let go, go straight into it: not before it has begun, however long a
  /// busy machine or a limit of its cgroup keeps that thread from the processor, as they would run on.
  ///
  /// SIGSTOP goes to that thread and not to its process: the kernel takes a thread's own signals first
  /// (kernel: dequeue_signal). Of the process's it takes the lowest number first, and a signal that has
  /// a handler would be given its frame on the stack after the memory was dumped.
  ///
  /// - Throws: `.notStopping` if a stop has not begun in time; it begins as soon as it can.
  mutating func beginStops(timeoutNanoseconds: UInt64) throws(TraceError) {
    var first: [Int32: Int32] = [:]
    for (tid, held) in threads { first[held.pid] = min(first[held.pid] ?? tid, tid) }
    for (pid, tid) in first {
      do throws(KernelError) {
        _ = try invoke("tgkill", on: "thread \(tid)") { clinux_tgkill(pid, tid, SIGSTOP) }
      } catch {
        // Killed meanwhile.
        if error.errno != .noSuchProcess { throw .kernel(error) }
      }
    }
    for tid in first.values { threads[tid] = nil }
    let limit = MonotonicClock.now + timeoutNanoseconds
    for (pid, tid) in first {
      while Self.runs(tid, of: pid) {
        if MonotonicClock.now > limit {
          throw .notStopping(tid: tid, milliseconds: timeoutNanoseconds / 1_000_000)
        }
        MonotonicClock.pause(nanoseconds: 20_000)
      }
    }
  }

  private static func runs(_ tid: Int32, of pid: Int32) -> Bool {
    do throws(KernelError) {
      let file = try File.open("/proc/\(pid)/task/\(tid)/stat")
      let stat = try ProcessStat(parsing: try readToEnd(file.descriptor, path: file.path))
      return !["T", "Z", "X"].contains(stat.state)
    } catch { return false }
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
