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
  let onEvent: @Sendable (PredumpEvent) -> Void

  /// What the next round and the policy need to know.
  struct Outcome: ~Copyable {
    var written: WrittenRound
    var populated: PopulatedSet
    var counters: CopyCounters
    /// How long the process stood still for the scan (ns); 0 in a live scan.
    var scanStopNanoseconds: UInt64

    /// Gives up the round, for its commit.
    consuming func takeWritten() -> WrittenRound { written }
  }

  /// Copies what changed since `previous`, with the pipeline writing behind.
  func run(
    _ view: inout TargetView, _ tracker: inout DirtyTracker, _ pipeline: ChunkPipeline,
    images: borrowing ImagesDirectory, previous: PopulatedSet
  ) throws(PredumpError) -> Outcome {
    var space = try view.addressSpace(isFrozen: false)
    let writer = try plan.writer(in: images, pid: view.process.pid)
    let reader = RoundReader(view.sharedMemory)
    var copier = RoundCopier(
      pipeline: pipeline, reader: reader, cancellation: cancellation, debt: tracker.debt,
      bytesPerSecondLimit: bytesPerSecondLimit)
    var stop = ScanStop()
    do throws(RoundFailure) {
      if scansStopped {
        let planned = try scanStopped(&space, &view, &tracker, previous: previous, &stop)
        let finished = try pipeline.write(with: writer) { () throws(RoundFailure) in
          try plan(planned, &space.vmas, &copier, reader)
        }
        tracker.assertDebtIsPaid()
        return try outcome(finished, space, copier, reader, view, stop)
      }
      try register(&space.vmas, &tracker)
      let finished = try pipeline.write(with: writer) { () throws(RoundFailure) in
        try planAll(&space.vmas, &copier, reader, tracker, previous: previous)
      }
      tracker.assertDebtIsPaid()
      return try outcome(finished, space, copier, reader, view, stop)
    } catch { throw view.explain(error) }
  }

  /// How long the process stood still for the scan.
  private struct ScanStop {
    var nanoseconds: UInt64 = 0
    var freezingNanoseconds: UInt64 = 0
  }

  private func outcome(
    _ writer: consuming RoundWriter, _ planned: AddressSpace, _ copier: RoundCopier,
    _ reader: RoundReader, _ view: borrowing TargetView, _ stop: ScanStop
  ) throws(RoundFailure) -> Outcome {
    let read: RoundReader.Outcome
    do throws(KernelError) { read = try reader.finish() } catch { throw .kernel(error) }
    // After an exit or execve scans find nothing and reads neither: not to be stored as holes.
    if view.memory.isAddressSpaceGone { throw .copy(.addressSpaceGone) }
    var space = planned
    space.subtract(read.missing)
    var statistics = RoundStatistics()
    statistics.freezingMicroseconds = stop.freezingNanoseconds / 1000
    statistics.frozenMicroseconds = stop.nanoseconds / 1000
    statistics.copyMicroseconds = read.counters.nanoseconds / 1000
    statistics.wallMicroseconds = (MonotonicClock.now - plan.began) / 1000
    statistics.pagesScanned = space.vmas.reduce(0) { $0 + $1.pagesStored + $1.pagesFromParent }
    return Outcome(
      written: WrittenRound(writer: writer, addressSpace: space, statistics: statistics),
      populated: copier.populated.subtracting(read.missing), counters: read.counters,
      scanStopNanoseconds: stop.nanoseconds)
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

extension AddressSpace {
  /// Takes pages that could not be read from what the VMAs that hold them are said to have stored.
  fileprivate mutating func subtract(_ missing: [PageRange]) {
    if missing.isEmpty { return }
    var holes = PopulatedSet()
    for range in missing.sorted(by: { $0.start < $1.start }) { holes.append(range) }
    var cursor = PopulatedSet.Cursor(holes)
    for index in vmas.indices {
      cursor.split(vmas[index].range) { piece, isMissing in
        if isMissing { vmas[index].pagesStored -= min(piece.pageCount, vmas[index].pagesStored) }
      }
    }
  }
}

/// Tells how far a round is, ten times a second at most.
struct ProgressMeter {
  private static let intervalNanoseconds: UInt64 = 100_000_000

  private let round: Int
  private let pagesExpected: UInt64
  private let onEvent: @Sendable (PredumpEvent) -> Void
  private var last = MonotonicClock.now

  init(round: Int, pagesExpected: UInt64, _ onEvent: @escaping @Sendable (PredumpEvent) -> Void) {
    self.round = round
    self.pagesExpected = pagesExpected
    self.onEvent = onEvent
  }

  mutating func report(pagesDone: UInt64) {
    let now = MonotonicClock.now
    guard now - last >= Self.intervalNanoseconds else { return }
    last = now
    onEvent(
      .progress(
        RoundProgress(
          round: round, pagesDone: pagesDone, pagesExpected: max(pagesExpected, pagesDone))))
  }
}
