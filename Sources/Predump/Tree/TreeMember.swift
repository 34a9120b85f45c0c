internal import Images
internal import Kernel
internal import SystemPackage
internal import Tracee

/// A process of the dump: the target, or one of its descendants.
///
/// It stands for one address space: after an execve the process is another member. An object,
/// because arrays cannot hold values that have one owner; for the engine's thread alone.
final class TreeMember {
  /// Process id of its parent.
  let parent: Int32
  /// Index of the first round that holds it.
  private(set) var since: Int
  var view: TargetView
  var tracker: DirtyTracker
  /// What the chain holds of its own memory.
  let history: StreamHistory
  /// Compares in the freeze, if that was asked for.
  var verifier: FinalVerifier?
  private var signs = PinnedWriters()
  /// How warnings begin, which for the target speak of "the process".
  private let prefix: String

  /// Takes hold of a process, without touching it. Until `attach`, all of its pages count as written.
  ///
  /// - Parameters:
  ///   - parent: process id of its parent; nil for the target.
  ///   - look: what is known of its VMAs, if somebody has just looked.
  init(
    _ process: consuming TargetProcess, parent: Int32?, since: Int, numbers: SharedObjectNumbers,
    look: MemoryLook? = nil, tuning: EngineTuning
  ) throws(PredumpError) {
    let view = try TargetView(process, numbers: numbers, look: look, faults: tuning.faults)
    do throws(KernelError) {
      tracker = DirtyTracker(pagemap: try view.process.open("pagemap"), tuning: tuning)
      history = try StreamHistory.ofProcess(tuning.faults)
    } catch { throw view.explain(error) }
    prefix = parent == nil ? "" : "process \(view.process.pid) (\(view.identity.command)): "
    self.view = view
    self.parent = parent ?? 0
    self.since = since
  }

  /// Every round after `round` is lost.
  func rollBack(to round: Int) {
    since = min(since, round + 1)
    history.rollBack(to: round)
    // What waits for the freeze is still written; but it may be held by nobody now.
    tracker.hot = HotPages()
    // What a lost scan owes, the history knows.
    _ = tracker.debt?.settle()
  }

  /// Whether it has exited or called execve.
  var isGone: Bool { view.process.hasExited || view.memory.isAddressSpaceGone }

  /// Process id.
  var pid: Int32 { view.process.pid }

  /// Starts tracking: one thread of the process is stopped for a moment.
  ///
  /// - Returns: how long it was stopped (ns).
  func attach(_ faults: FaultPlan) throws(PredumpError) -> UInt64 {
    let outcome: UserfaultfdInjection.Outcome
    do throws(TraceError) {
      outcome = try UserfaultfdInjection.inject(into: view.process, faults: faults)
    } catch { throw PredumpError(error) }
    let stopped = outcome.stoppedNanoseconds
    do throws(KernelError) {
      tracker.begin(try Userfaultfd(owning: outcome.take(), of: "pid \(pid)"))
    } catch { throw view.explain(error) }
    return stopped
  }

  /// Ends tracking.
  func endTracking() { tracker.end((try? view.process.maps()) ?? []) }

  deinit { endTracking() }

  /// What a round's record says of it.
  func described(_ space: AddressSpace) -> RoundMember {
    RoundMember(target: view.identity, parent: parent, since: since, addressSpace: space)
  }

  /// Looks for writers that a live scan can miss.
  ///
  /// - Returns: whether its threads are to be stopped for the scan, and what the user has to know, if
  ///   that is news.
  func lookForPinnedWriters(_ mode: ScanMode) throws(PredumpError) -> (stops: Bool, news: String?) {
    if mode == .live { return (false, nil) }
    let found: PinnedWriters
    do throws(KernelError) {
      found = try PinnedWriters.signs(of: view.process, maps: try view.process.maps())
    } catch { throw view.explain(error) }
    tracker.fixedBuffers = found.fixedBuffers
    let isNews = found != signs && found.needsStoppedScan
    signs = found
    return (mode == .stopped || found.needsStoppedScan, isNews ? prefix + found.warning : nil)
  }

  /// Looks again at what io_uring may write, while the process stands still.
  ///
  /// - Returns: requests that the kernel has not answered.
  func lookAtRings() -> UInt32 {
    let requests = signs.lookAgain(at: view.process)
    tracker.fixedBuffers = signs.fixedBuffers
    return requests
  }

  /// What a freeze would find: the tracked pages that were written, and what is taken in every
  /// round.
  func pending(_ vmas: [VMARecord], _ crew: CrewScanner) throws(PredumpError) -> PendingPages {
    var pending: PendingPages
    do throws(KernelError) {
      pending = try tracker.pending(vmas, held: history.held, crew)
    } catch { throw view.explain(error) }
    for vma in vmas where vma.treatment != .tracked && vma.pagesStored + vma.pagesFromParent > 0 {
      // Of a shared object, what this round found changed: as much may change until the freeze.
      pending.pageCount += vma.pagesStored
      pending.runCount += 1
      if vma.treatment == .comparedInFreeze {
        pending.comparedPageCount += vma.pagesStored + vma.pagesFromParent
      } else {
        // Read again in any case, also what was the same.
        pending.pageCount += vma.pagesFromParent
      }
    }
    return pending
  }

  /// Copies some of what is pending as a freeze would.
  func rehearse(_ rehearsal: CopyRehearsal, _ crew: ThreadCrew)
    -> (pages: UInt64, nanoseconds: UInt64)?
  {
    rehearsal.run(tracker.pendingSet, from: view.sharedMemory, crew)
  }

  /// Decides which pages the next live round leaves to the freeze.
  ///
  /// - Parameter limit: pages at most; what is taken of it is gone.
  func leaveHotPages(_ limit: inout UInt64) {
    tracker.hot.decide(pending: tracker.pendingSet, held: history.held, limit: limit)
    limit -= tracker.hot.waiting.pageCount
  }

  /// Threads of the process now.
  func threadCount() throws(PredumpError) -> Int {
    do throws(KernelError) { return try view.process.threadIDs().count } catch {
      throw view.explain(error)
    }
  }
}
