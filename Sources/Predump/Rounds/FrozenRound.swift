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

  /// What is left of the freeze.
  struct Outcome: ~Copyable {
    var written: WrittenRound
    var counters: CopyCounters
    var report: FreezeReport

    /// Gives up the round, for its commit.
    consuming func takeWritten() -> WrittenRound { written }
  }

  /// Freezes the process and composes what it held at that instant.
  func run(
    _ view: inout TargetView, _ tracker: borrowing DirtyTracker, _ pipeline: ChunkPipeline,
    images: borrowing ImagesDirectory, previous: PopulatedSet,
    onThaw: (FreezeReport) -> Void
  ) throws(PredumpError) -> Outcome {
    // Everything that can be made ready is, before anything stands still.
    let writer = try plan.writer(in: images, pid: view.process.pid)
    var copy = try prepareCopy()
    var verifier = verifies ? try openVerifier(images, pid: view.process.pid) : nil
    let frozen: FrozenProcess
    do throws(TraceError) {
      frozen = try FrozenProcess(
        freezing: view.process, timeoutNanoseconds: freezeTimeoutNanoseconds, faults: plan.faults)
    } catch { throw PredumpError(error) }

    plan.faults.reach(.afterFreeze)
    // From here on every way out thaws: `frozen` lets go when it is dropped.
    let copyBegan = MonotonicClock.now
    var space = try view.addressSpace(isFrozen: true)
    tracker.exclude(&space.vmas)
    do throws(RoundFailure) {
      try copyPages(space.vmas, &copy, view, tracker, previous: previous)
      let found = try copy.verify(&verifier, space.vmas, memory: view.memory)
      plan.faults.reach(.midFrozenCopy)
      let objects = try SharedObjectCopy(space.vmas, view, &copy)
      var report = FreezeReport(
        frozenNanoseconds: 0, freezingNanoseconds: frozen.freezingNanoseconds,
        copyNanoseconds: MonotonicClock.now - copyBegan, predictedNanoseconds: predictedNanoseconds,
        pages: copy.counters.pages, pagesFoundByVerification: found,
        threadCount: frozen.threadCount)
      let replay = FrozenReplay(pid: view.process.pid)
      let finished: RoundWriter
      if copy.hasOverflow {
        // More than the memory for it: the process waits for the images.
        finished = try replay.write(copy, objects, &space.vmas, view, pipeline, writer)
        report.pages = space.vmas.reduce(0) { $0 + $1.pagesStored }
        report.frozenNanoseconds = try thaw(frozen)
        onThaw(report)
      } else {
        report.frozenNanoseconds = try thaw(frozen)
        onThaw(report)
        finished = try replay.write(copy, objects, &space.vmas, view, pipeline, writer)
      }
      var statistics = RoundStatistics()
      statistics.freezingMicroseconds = report.freezingNanoseconds / 1000
      statistics.frozenMicroseconds = report.frozenNanoseconds / 1000
      statistics.copyMicroseconds = copy.counters.nanoseconds / 1000
      statistics.scanMicroseconds =
        (report.copyNanoseconds - min(report.copyNanoseconds, copy.counters.nanoseconds)) / 1000
      statistics.wallMicroseconds = (MonotonicClock.now - plan.began) / 1000
      statistics.pagesScanned = space.vmas.reduce(0) { $0 + $1.pagesStored + $1.pagesFromParent }
      return Outcome(
        written: WrittenRound(writer: finished, addressSpace: space, statistics: statistics),
        counters: copy.counters, report: report)
    } catch { throw view.explain(error) }
  }

  private func openVerifier(_ images: borrowing ImagesDirectory, pid: Int32) throws(PredumpError)
    -> FinalVerifier
  {
    do throws(ImageError) {
      return try FinalVerifier(path: images.place.localPath ?? "", pid: pid)
    } catch { throw PredumpError(error) }
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

  private func copyPages(
    _ vmas: [VMARecord], _ copy: inout FrozenCopy, _ view: borrowing TargetView,
    _ tracker: borrowing DirtyTracker, previous: PopulatedSet
  ) throws(RoundFailure) {
    var cursor = PopulatedSet.Cursor(previous)
    for (index, record) in vmas.enumerated() {
      let flags = RoundPlan.presentFlags(of: record)
      do throws(ScanFailure<CopyFailure>) {
        try tracker.scan(record, isFrozen: true, previous: &cursor) {
          (range, fate) throws(CopyFailure) in
          switch fate {
          case .fromParent: copy.takeFromParent(range, vma: index)
          case .store:
            try copy.store(range, vma: index, flags: flags) {
              (address, buffer) throws(KernelError) in
              try view.memory.readPages(at: address, into: buffer)
            }
          }
        }
      } catch { throw RoundFailure(error) }
    }
    // After an execve the scans found nothing, which would be stored as holes.
    if view.memory.isAddressSpaceGone { throw .copy(.addressSpaceGone) }
  }
}
