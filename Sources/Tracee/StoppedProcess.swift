internal import Glibc
internal import Kernel
internal import SystemPackage

/// A process, perhaps with its descendants, that stands still by SIGSTOP after a freeze, traced by
/// nobody. Dropping it lets those run whose stop was ours.
package struct StoppedProcess: ~Copyable {
  /// One process of it.
  struct Member: Sendable {
    let process: HeldThreads.Descendant
    /// False if it was stopped before we came.
    let isOurStop: Bool
  }

  /// The target first, parents before their children.
  private let members: [Member]
  private let guardian: ProcessGuardian
  private let began: UInt64
  private var isOver = false

  init(_ members: [Member], _ guardian: ProcessGuardian, began: UInt64) {
    self.members = members
    self.guardian = guardian
    self.began = began
  }

  deinit {
    if isOver { return }
    try? Self.carryOn(members)
    try? guardian.setContinues(false)
  }

  /// Waits until every thread shows as stopped: they run into the stop by themselves.
  borrowing func waitForThreads(timeoutNanoseconds: UInt64) throws(TraceError) {
    let deadline = MonotonicClock.now + timeoutNanoseconds
    for member in members {
      while let tid = Self.runningThread(of: member.process.process) {
        // A descendant may have been killed; the target is what all this is about.
        if member.process.process.hasExited {
          if member.process.parent == 0 { throw .gone(pid: member.process.process.pid) }
          break
        }
        if MonotonicClock.now > deadline {
          throw .notStopping(tid: tid, milliseconds: timeoutNanoseconds / 1_000_000)
        }
        MonotonicClock.pause(nanoseconds: 50_000)
      }
    }
  }

  /// Ends the stop. Processes that somebody ended meanwhile, as `criu dump` does, are no error.
  ///
  /// - Returns: nanoseconds from the begin of the freeze to now.
  package consuming func release(leaving state: LeaveState) throws(TraceError) -> UInt64 {
    isOver = true
    do throws(KernelError) {
      switch state {
      case .running: try Self.carryOn(members)
      case .stopped: break
      case .killed: try Self.send(SIGKILL, to: members)
      }
    } catch {
      // The guardian still tries when we end.
      throw .kernel(error)
    }
    let nanoseconds = MonotonicClock.now - began
    do throws(KernelError) { try guardian.setContinues(false) } catch { throw .kernel(error) }
    return nanoseconds
  }

  /// Children first: a parent that runs again should not find them stopped.
  static func carryOn(_ members: [Member]) throws(KernelError) {
    try send(SIGCONT, to: members.filter(\.isOurStop).reversed())
  }

  /// Sends it to all, whatever one of them answers.
  private static func send(_ signal: CInt, to members: [Member]) throws(KernelError) {
    var failure: KernelError?
    for member in members {
      do throws(KernelError) { try member.process.process.send(signal: signal) } catch {
        if error.errno != .noSuchProcess { failure = failure ?? error }
      }
    }
    if let failure { throw failure }
  }

  private static func runningThread(of process: borrowing TargetProcess) -> Int32? {
    for tid in (try? process.threadIDs()) ?? [] {
      guard let bytes = try? process.read("task/\(tid)/stat") else { continue }
      // t: somebody traces it already.
      guard let state = try? ProcessStat(parsing: bytes).state else { continue }
      if !["T", "t", "Z", "X"].contains(state) { return tid }
    }
    return nil
  }
}
