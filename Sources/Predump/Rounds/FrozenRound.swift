internal import Images
internal import Kernel
internal import Tracee

/// The last round: freeze, find, copy to memory, thaw; compress and write afterwards.
///
/// A process that is not to run on is held until its images are complete: only then is it stopped or
/// killed. If they cannot be written, or memdump dies, it runs on.
struct FrozenRound: ~Copyable {
  let plan: RoundPlan
  let leave: LeaveState
  let freezeTimeoutNanoseconds: UInt64
  let freezeMemoryBytes: UInt64
  /// Pages that the freeze is expected to copy.
  let pagesExpected: UInt64
  let predictedNanoseconds: UInt64
  /// Whether pages that tracking calls unchanged are compared with the chain.
  let verifies: Bool
  /// The user's commands, of which one may be for the freeze.
  let hooks: HookRunner
  /// For which processes to look for buffers that are written unseen.
  let scan: ScanMode
  let engineFaults: EngineFaultPlan

  /// What is left of the freeze.
  struct Outcome: ~Copyable {
    var written: WrittenRound
    var counters: CopyCounters
    /// Pages that were copied and are taken from the parent: it holds the same bytes.
    var unchangedPages: UInt64
    var report: FreezeReport
    /// To be released once the round is committed.
    let held: HeldProcess

    /// Gives up the round, for its commit.
    consuming func takeWritten() -> WrittenRound { written }
  }

  /// Freezes the processes and composes what they held at that instant.
  ///
  /// - Parameter tree: brought up to date while everything stands still.
  func run(
    _ tree: inout TargetTree, _ pipeline: ChunkPipeline, images: borrowing ImagesDirectory,
    _ known: ObjectHistories, _ comparer: PageComparer, _ scanner: CrewScanner, _ crew: ThreadCrew,
    onThaw: (FreezeReport) -> Void, onWarning: (String) -> Void
  ) throws(PredumpError) -> Outcome {
    // Everything that can be made ready is, before anything stands still.
    let target = tree.target
    let writer = try plan.writer(in: images, pid: target.pid)
    var copy = try prepareCopy()
    if verifies { try openVerifiers(tree.members, images) }
    try lookForFixedBuffers(tree.members, onWarning)
    // Whatever else runs on this machine, the processes should not wait for it.
    let preferred = PreferredThread()
    let frozen: FrozenProcess
    do throws(TraceError) {
      frozen = try FrozenProcess(
        freezing: target.view.process, withDescendants: plan.includesDescendants,
        timeoutNanoseconds: freezeTimeoutNanoseconds, faults: plan.faults)
    } catch { throw PredumpError(error) }
    plan.faults.reach(.afterFreeze)
    // From here on every way out thaws: the processes are let go when their owner is dropped.
    let requestsInFlight = Self.waitForRequests(tree.members)
    let copyBegan = MonotonicClock.now
    try tree.settle(frozen.descendants, round: plan.index)
    for member in tree.members {
      member.view.memory.readUnreadable(through: frozen.tracerReads(of: member.pid))
    }
    let (freezingNanoseconds, threadCount) = (frozen.freezingNanoseconds, frozen.threadCount)
    let held = HeldProcess(frozen, of: target.pid)
    do throws(RoundFailure) {
      var members = try copyMembers(tree.members, &copy, scanner, crew)
      plan.faults.reach(.midFrozenCopy)
      let objects = try SharedObjectCopy(members, &copy, known, comparer, faults: engineFaults)
      var report = FreezeReport(
        frozenNanoseconds: 0, freezingNanoseconds: freezingNanoseconds,
        copyNanoseconds: MonotonicClock.now - copyBegan, predictedNanoseconds: predictedNanoseconds,
        pages: copy.counters.pages, pagesCompared: objects.pagesCompared,
        pagesFoundByVerification: verifies ? members.reduce(0) { $0 + $1.pagesFound } : nil,
        threadCount: threadCount, requestsInFlight: requestsInFlight,
        processCount: held.pids.count, commandNanoseconds: nil)
      let finished: RoundWriter
      var unchanged: UInt64 = 0
      if copy.hasOverflow {
        // More than the memory for it: the processes wait for the images.
        finished = try FrozenReplay.write(
          copy, objects, &members, pipeline, writer, plan, unchanged: &unchanged)
        report.pages = members.reduce(0) { $0 + $1.pagesStored }
        report.frozenNanoseconds = try thaw(held, &report.commandNanoseconds)
        onThaw(report)
      } else {
        report.frozenNanoseconds = try thaw(held, &report.commandNanoseconds)
        // The process should pay for no first write any more while the images are written. One that
        // is held writes nothing, and if its round is lost the next one asks what was written.
        if leave == .running {
          for member in tree.members { member.endTracking() }
        }
        _ = consume preferred
        onThaw(report)
        finished = try FrozenReplay.write(
          copy, objects, &members, pipeline, writer, plan, unchanged: &unchanged)
      }
      let described = members.map(\.described)
      var statistics = RoundStatistics()
      statistics.freezingMicroseconds = report.freezingNanoseconds / 1000
      statistics.frozenMicroseconds = report.frozenNanoseconds / 1000
      statistics.copyMicroseconds = copy.counters.nanoseconds / 1000
      statistics.scanMicroseconds =
        (report.copyNanoseconds - min(report.copyNanoseconds, copy.counters.nanoseconds)) / 1000
      statistics.wallMicroseconds = (MonotonicClock.now - plan.began) / 1000
      statistics.pagesScanned = described.pageCount
      return Outcome(
        written: WrittenRound(writer: finished, members: described, statistics: statistics),
        counters: copy.counters, unchangedPages: unchanged, report: report, held: held)
    } catch { throw target.view.explain(error) }
  }

  private func openVerifiers(_ members: [TreeMember], _ images: borrowing ImagesDirectory)
    throws(PredumpError)
  {
    // A process that no round holds yet is stored whole: there is nothing to compare with.
    for member in members where member.since < plan.index {
      do throws(ImageError) {
        member.verifier = try FinalVerifier(path: images.place.localPath ?? "", pid: member.pid)
      } catch { throw PredumpError(error) }
    }
  }

  /// How long devices get for requests of io_uring that are under way (ns).
  private static let requestPatienceNanoseconds: UInt64 = 10_000_000

  /// Gives devices some time to write what they were asked for.
  ///
  /// - Returns: requests that are not answered then. They may be done all the same: the answer takes
  ///   a thread of the process.
  private static func waitForRequests(_ members: [TreeMember]) -> UInt32 {
    let deadline = MonotonicClock.now + requestPatienceNanoseconds
    while true {
      let count = members.reduce(UInt32(0)) { $0 &+ $1.lookAtRings() }
      if count == 0 || MonotonicClock.now >= deadline { return count }
      MonotonicClock.pause(nanoseconds: 500_000)
    }
  }

  /// Buffers that the kernel writes to unseen are stored in the freeze in any case.
  private func lookForFixedBuffers(_ members: [TreeMember], _ onWarning: (String) -> Void)
    throws(PredumpError)
  {
    for member in members {
      do throws(PredumpError) {
        if let news = try member.lookForPinnedWriters(scan).news { onWarning(news) }
      } catch {
        guard member !== members[0], case .targetGone = error else { throw error }
      }
    }
  }

  private func prepareCopy() throws(PredumpError) -> FrozenCopy {
    do throws(KernelError) {
      // A quarter more than expected: the process writes on until it stands still.
      let expected = pagesExpected * pageBytes
      return try FrozenCopy(
        capacityBytes: freezeMemoryBytes, expectedBytes: expected + expected / 4 + (1 << 20))
    } catch { throw .kernel(error) }
  }

  /// Runs the user's commands for the freeze, and lets processes run that are to run; nobody waits
  /// for the others.
  private func thaw(_ held: HeldProcess, _ command: inout UInt64?) throws(RoundFailure) -> UInt64 {
    try hooks.runInFreeze(
      held, plan, timeoutNanoseconds: freezeTimeoutNanoseconds, commandNanoseconds: &command)
    guard leave == .running else { return held.nanoseconds }
    do throws(TraceError) {
      plan.faults.reach(.beforeThaw)
      let nanoseconds = try held.release(leaving: leave)
      plan.faults.reach(.afterThaw)
      return nanoseconds
    } catch {
      if case .kernel(let cause) = error { throw .kernel(cause) }
      throw .copy(.addressSpaceGone)
    }
  }

  /// Copies every process's own pages. A descendant that is killed meanwhile is left out.
  private func copyMembers(
    _ members: [TreeMember], _ copy: inout FrozenCopy, _ scanner: CrewScanner, _ crew: ThreadCrew
  ) throws(RoundFailure) -> [FrozenMember] {
    var result: [FrozenMember] = []
    for member in members {
      let first = copy.beginSection()
      do throws(PredumpError) {
        // Of a process that is met now for the first time the flags of VMAs are not known yet.
        let isNew = member.since == plan.index && plan.index > 1
        var space = try member.view.addressSpace(isFrozen: !isNew)
        member.tracker.exclude(&space.vmas)
        do throws(RoundFailure) {
          try copyPages(space.vmas, &copy, member, scanner, crew)
          let found = try copy.verify(&member.verifier, space.vmas, memory: member.view.memory)
          result.append(
            FrozenMember(
              member: member, described: member.described(space),
              items: first..<copy.items.count, pagesFound: found ?? 0))
        } catch { throw member.view.explain(error) }
      } catch {
        guard member !== members[0], case .targetGone = error else { throw .other(error) }
        copy.dropSection()
      }
    }
    return result
  }

  private func copyPages(
    _ vmas: [VMARecord], _ copy: inout FrozenCopy, _ member: TreeMember, _ scanner: CrewScanner,
    _ crew: ThreadCrew
  ) throws(RoundFailure) {
    let flags = vmas.map(RoundPlan.presentFlags)
    do throws(ScanFailure<CopyFailure>) {
      try member.tracker.scanFrozen(vmas, held: member.history.held, scanner) {
        (index, range, fate) throws(CopyFailure) in
        switch fate {
        case .fromParent: copy.takeFromParent(range, vma: index)
        case .store: copy.plan(range, vma: index, flags: flags[index])
        }
      }
    } catch { throw RoundFailure(error) }
    let missing: [PageRange]
    do throws(CopyFailure) {
      missing = try copy.readPlanned(from: member.view.sharedMemory, crew)
    } catch { throw .copy(error) }
    let refused = missing.map(\.start).first { address in
      vmas.contains { $0.range.contains(address) && $0.protection & 1 == 0 }
    }
    // To leave such a page out would be to lose it: it is there, and only access to it is refused.
    if let refused {
      throw .other(
        .unsupportedKernel(
          "inaccessible memory at \(hexAddress(refused)) cannot be read even by a tracer; boot the "
            + "kernel with proc_mem.force_override=ptrace"))
    }
    // After an execve the scans found nothing, which would be stored as holes.
    if member.view.memory.isAddressSpaceGone { throw .copy(.addressSpaceGone) }
  }
}
