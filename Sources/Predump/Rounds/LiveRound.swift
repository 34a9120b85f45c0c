internal import Images
internal import Kernel
internal import SystemPackage
internal import Tracee

/// A round taken from the running process: scan and protect a range, then copy it, VMA by VMA.
///
/// The order is what loses nothing: a page that is written after its protection, even before its
/// copy, is dirty again for the next round.
struct LiveRound: ~Copyable {
  let plan: RoundPlan
  let cancellation: Cancellation
  /// Pages that the round is expected to copy.
  let pagesExpected: UInt64
  /// Whether all threads are stopped for the time of the scan.
  let scansStopped: Bool
  let freezeTimeoutNanoseconds: UInt64
  /// Bytes a second that are read at most; 0 is without limit.
  let bytesPerSecondLimit: UInt64
  let faults: EngineFaultPlan
  let onEvent: @Sendable (PredumpEvent) -> Void

  /// What the next round and the policy need to know.
  struct Outcome: ~Copyable {
    var written: WrittenRound
    var holdings: RoundHoldings
    var counters: CopyCounters
    /// Pages that were read and taken from the parent: it holds the same bytes.
    var unchangedPages: UInt64
    /// Pages of shared objects that were compared with what the chain holds.
    var compared: CopyCounters
    /// How long the process stood still for the scan (ns); 0 in a live scan.
    var scanStopNanoseconds: UInt64

    /// Gives up the round, for its commit.
    consuming func takeWritten() -> WrittenRound { written }
  }

  /// Copies what changed since the round before, with the pipeline writing behind.
  func run(
    _ view: inout TargetView, _ tracker: inout DirtyTracker, _ pipeline: ChunkPipeline,
    images: borrowing ImagesDirectory, _ history: inout ChainHistory, _ comparer: PageComparer
  ) throws(PredumpError) -> Outcome {
    var space = try view.addressSpace(isFrozen: false)
    let writer = try plan.writer(in: images, pid: view.process.pid)
    let reader = RoundReader(.memory(view.sharedMemory), history.process)
    var copier = RoundCopier(
      pipeline: pipeline, reader: reader, cancellation: cancellation, debt: tracker.debt,
      bytesPerSecondLimit: bytesPerSecondLimit)
    var stop = ScanStop()
    var planned: [Planned] = []
    var holdings = RoundHoldings()
    var objects: [ObjectPlan] = []
    let previous = history.process.held
    do throws(RoundFailure) {
      if scansStopped {
        planned = try scanStopped(&space, &view, &tracker, previous: previous, &stop)
      } else {
        try register(&space.vmas, &tracker)
      }
      let finished = try pipeline.write(with: writer) { () throws(RoundFailure) in
        if scansStopped {
          try plan(planned, &space.vmas, &copier, reader)
        } else {
          try planAll(&space.vmas, &copier, reader, tracker, previous: previous)
        }
        holdings.process = copier.populated
        objects = try planObjects(&space.vmas, &copier, view, &history, comparer)
      }
      tracker.assertDebtIsPaid()
      for object in objects { holdings.objects[object.id] = object.populated }
      return try outcome(
        finished, space, holdings, reader, objects, compared: comparer.takeCounters(), view, stop)
    } catch { throw view.explain(error) }
  }

  /// How long the process stood still for the scan.
  private struct ScanStop {
    var nanoseconds: UInt64 = 0
    var freezingNanoseconds: UInt64 = 0
  }

  private func outcome(
    _ writer: consuming RoundWriter, _ planned: AddressSpace, _ held: RoundHoldings,
    _ reader: RoundReader, _ objects: [ObjectPlan], compared: CopyCounters,
    _ view: borrowing TargetView, _ stop: ScanStop
  ) throws(RoundFailure) -> Outcome {
    let read: RoundReader.Outcome
    var space = planned
    do throws(KernelError) {
      read = try reader.finish()
      for object in objects {
        space.vmas[object.vma].take(unchanged: try object.reader.finish().unchangedCount)
      }
    } catch { throw .kernel(error) }
    // After an exit or execve scans find nothing and reads neither: not to be stored as holes.
    if view.memory.isAddressSpaceGone { throw .copy(.addressSpaceGone) }
    space.account(for: read)
    var holdings = held
    holdings.process = held.process.subtracting(read.missing)
    var statistics = RoundStatistics()
    statistics.freezingMicroseconds = stop.freezingNanoseconds / 1000
    statistics.frozenMicroseconds = stop.nanoseconds / 1000
    statistics.copyMicroseconds = read.counters.nanoseconds / 1000
    statistics.wallMicroseconds = (MonotonicClock.now - plan.began) / 1000
    statistics.pagesScanned = space.vmas.reduce(0) { $0 + $1.pagesStored + $1.pagesFromParent }
    return Outcome(
      written: WrittenRound(writer: writer, addressSpace: space, statistics: statistics),
      holdings: holdings, counters: read.counters, unchangedPages: read.unchangedCount,
      compared: compared, scanStopNanoseconds: stop.nanoseconds)
  }

  private func register(_ vmas: inout [VMARecord], _ tracker: inout DirtyTracker)
    throws(RoundFailure)
  {
    let refusals: [DirtyTracker.Refusal]
    do throws(KernelError) { refusals = try tracker.register(&vmas) } catch { throw .kernel(error) }
    for refusal in refusals where plan.index == 1 {
      onEvent(
        .warning(
          "\(hexAddress(refusal.range.start))-\(hexAddress(refusal.range.end)) cannot be tracked "
            + "(\(refusal.error.errno.description)): it is taken whole in the freeze"))
    }
  }

  private func planAll(
    _ vmas: inout [VMARecord], _ copier: inout RoundCopier, _ reader: RoundReader,
    _ tracker: borrowing DirtyTracker, previous: PopulatedSet
  ) throws(RoundFailure) {
    var cursor = PopulatedSet.Cursor(previous)
    var progress = ProgressMeter(round: plan.index, pagesExpected: pagesExpected, onEvent)
    for index in vmas.indices {
      do throws(ScanFailure<CopyFailure>) {
        try tracker.scan(vmas[index], isFrozen: false, previous: &cursor) {
          (range, fate) throws(CopyFailure) in
          try plan(range, fate, &vmas[index], &copier)
          progress.report(pagesDone: reader.progress.pages)
          plan.faults.reach(.midRound)
        }
      } catch { throw RoundFailure(error) }
    }
    copier.flush()
  }

  private func plan(
    _ range: PageRange, _ fate: DirtyTracker.Fate, _ record: inout VMARecord,
    _ copier: inout RoundCopier
  ) throws(CopyFailure) {
    switch fate {
    case .fromParent:
      try copier.takeFromParent(range)
      record.pagesFromParent += range.pageCount
    case .store:
      try copier.plan(range, flags: RoundPlan.presentFlags(of: record))
      record.pagesStored += range.pageCount
    }
  }
}

// The scan under a stop: writers that hold on to pages do so within system calls, and a stop waits
// for the end of those. Everything else is as in a live scan, and the copy is live.
extension LiveRound {
  /// A run of pages and what the round does with it.
  private struct Planned {
    var range: PageRange
    var fate: DirtyTracker.Fate
    var vma: Int
  }

  private func scanStopped(
    _ space: inout AddressSpace, _ view: inout TargetView, _ tracker: inout DirtyTracker,
    previous: PopulatedSet, _ stop: inout ScanStop
  ) throws(RoundFailure) -> [Planned] {
    var planned: [Planned] = []
    let frozen: FrozenProcess
    do throws(TraceError) {
      frozen = try FrozenProcess(
        freezing: view.process, timeoutNanoseconds: freezeTimeoutNanoseconds)
    } catch { throw .freeze(error) }
    stop.freezingNanoseconds = frozen.freezingNanoseconds
    do throws(PredumpError) { space = try view.addressSpace(isFrozen: true) } catch {
      throw .other(error)
    }
    try register(&space.vmas, &tracker)
    var cursor = PopulatedSet.Cursor(previous)
    for index in space.vmas.indices {
      do throws(ScanFailure<CopyFailure>) {
        try tracker.scan(space.vmas[index], isFrozen: false, previous: &cursor) {
          (range, fate) throws(CopyFailure) in
          planned.append(Planned(range: range, fate: fate, vma: index))
        }
      } catch { throw RoundFailure(error) }
    }
    do throws(TraceError) { stop.nanoseconds = try frozen.thaw(leaving: .running) } catch {
      throw .freeze(error)
    }
    return planned
  }

  private func plan(
    _ planned: [Planned], _ vmas: inout [VMARecord], _ copier: inout RoundCopier,
    _ reader: RoundReader
  ) throws(RoundFailure) {
    var progress = ProgressMeter(round: plan.index, pagesExpected: pagesExpected, onEvent)
    do throws(CopyFailure) {
      for item in planned {
        try plan(item.range, item.fate, &vmas[item.vma], &copier)
        progress.report(pagesDone: reader.progress.pages)
      }
    } catch { throw .copy(error) }
    plan.faults.reach(.midRound)
    copier.flush()
  }
}
