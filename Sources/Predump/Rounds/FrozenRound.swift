internal import Images
internal import Kernel
internal import Tracee

/// The last round: freeze, find, copy to memory, thaw; compress and write afterwards.
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
  /// For which processes to look for buffers that are written unseen.
  let scan: ScanMode

  /// What is left of the freeze.
  struct Outcome: ~Copyable {
    var written: WrittenRound
    var counters: CopyCounters
    var report: FreezeReport

    /// Gives up the round, for its commit.
    consuming func takeWritten() -> WrittenRound { written }
  }

  /// Freezes the processes and composes what they held at that instant.
  ///
  /// - Parameter tree: brought up to date while everything stands still.
  func run(
    _ tree: inout TargetTree, _ pipeline: ChunkPipeline, images: borrowing ImagesDirectory,
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
    // From here on every way out thaws: `frozen` lets go when it is dropped.
    let requestsInFlight = Self.waitForRequests(tree.members)
    let copyBegan = MonotonicClock.now
    try tree.settle(frozen.descendants, round: plan.index)
    do throws(RoundFailure) {
      var members = try copyMembers(tree.members, &copy)
      plan.faults.reach(.midFrozenCopy)
      let objects = try SharedObjectCopy(members, &copy)
      var report = FreezeReport(
        frozenNanoseconds: 0, freezingNanoseconds: frozen.freezingNanoseconds,
        copyNanoseconds: MonotonicClock.now - copyBegan, predictedNanoseconds: predictedNanoseconds,
        pages: copy.counters.pages,
        pagesFoundByVerification: verifies ? members.reduce(0) { $0 + $1.pagesFound } : nil,
        threadCount: frozen.threadCount, requestsInFlight: requestsInFlight,
        processCount: 1 + frozen.descendants.count)
      let finished: RoundWriter
      if copy.hasOverflow {
        // More than the memory for it: the processes wait for the images.
        finished = try FrozenReplay.write(copy, objects, &members, pipeline, writer)
        report.pages = members.reduce(0) { $0 + $1.pagesStored }
        report.frozenNanoseconds = try thaw(frozen)
        onThaw(report)
      } else {
        report.frozenNanoseconds = try thaw(frozen)
        _ = consume preferred
        onThaw(report)
        finished = try FrozenReplay.write(copy, objects, &members, pipeline, writer)
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
        counters: copy.counters, report: report)
    } catch { throw target.view.explain(error) }
  }

  private func openVerifiers(_ members: [TreeMember], _ images: borrowing ImagesDirectory)
    throws(PredumpError)
  {
    // A process that no round holds yet is stored whole: there is nothing to compare with.
    for member in members where member.since < plan.index {
      do throws(ImageError) {
        member.verifier = try FinalVerifier(path: images.directory.path, pid: member.pid)
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
      let count = members.reduce(UInt32(0)) { $0 &+ $1.requestsInFlight }
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

  private func thaw(_ frozen: consuming FrozenProcess) throws(RoundFailure) -> UInt64 {
    do throws(TraceError) {
      plan.faults.reach(.beforeThaw)
      let nanoseconds = try frozen.thaw(leaving: leave)
      plan.faults.reach(.afterThaw)
      return nanoseconds
    } catch {
      if case .kernel(let cause) = error { throw .kernel(cause) }
      throw .copy(.addressSpaceGone)
    }
  }

  /// Copies every process's own pages. A descendant that is killed meanwhile is left out.
  private func copyMembers(_ members: [TreeMember], _ copy: inout FrozenCopy)
    throws(RoundFailure) -> [FrozenMember]
  {
    var result: [FrozenMember] = []
    for member in members {
      let first = copy.beginSection()
      do throws(PredumpError) {
        // Of a process that is met now for the first time the flags of VMAs are not known yet.
        let isNew = member.since == plan.index && plan.index > 1
        var space = try member.view.addressSpace(isFrozen: !isNew)
        member.tracker.exclude(&space.vmas)
        do throws(RoundFailure) {
          try copyPages(space.vmas, &copy, member)
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

  private func copyPages(_ vmas: [VMARecord], _ copy: inout FrozenCopy, _ member: TreeMember)
    throws(RoundFailure)
  {
    var cursor = PopulatedSet.Cursor(member.populated)
    for (index, record) in vmas.enumerated() {
      let flags = RoundPlan.presentFlags(of: record)
      do throws(ScanFailure<CopyFailure>) {
        try member.tracker.scan(record, isFrozen: true, previous: &cursor) {
          (range, fate) throws(CopyFailure) in
          switch fate {
          case .fromParent: copy.takeFromParent(range, vma: index)
          case .store:
            try copy.store(range, vma: index, flags: flags) {
              (address, buffer) throws(KernelError) in
              try member.view.memory.readPages(at: address, into: buffer)
            }
          }
        }
      } catch { throw RoundFailure(error) }
    }
    // After an execve the scans found nothing, which would be stored as holes.
    if member.view.memory.isAddressSpaceGone { throw .copy(.addressSpaceGone) }
  }
}
