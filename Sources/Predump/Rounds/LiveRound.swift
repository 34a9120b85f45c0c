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
  /// Whether a process's threads are stopped for the time of its scan.
  let scan: ScanMode
  let freezeTimeoutNanoseconds: UInt64
  /// Bytes a second that are read at most; 0 is without limit.
  let bytesPerSecondLimit: UInt64
  let onEvent: @Sendable (PredumpEvent) -> Void

  /// What the next round and the policy need to know.
  struct Outcome: ~Copyable {
    var written: WrittenRound
    var counters: CopyCounters
    /// How long processes stood still for the scan (ns), in sum; 0 in a live scan.
    var scanStopNanoseconds: UInt64

    /// Gives up the round, for its commit.
    consuming func takeWritten() -> WrittenRound { written }
  }

  /// What is kept from process to process.
  private struct Progress {
    var copier: RoundCopier
    var meter: ProgressMeter
    var stopNanoseconds: UInt64 = 0
    var freezingNanoseconds: UInt64 = 0
  }

  /// Copies what changed in `members`, the target's first, with the pipeline writing behind.
  ///
  /// A descendant that exits or calls execve meanwhile is left out, or marked as gone.
  func run(_ members: [TreeMember], _ pipeline: ChunkPipeline, images: borrowing ImagesDirectory)
    throws(PredumpError) -> Outcome
  {
    let target = members[0]
    let writer = try plan.writer(in: images, pid: target.pid)
    var progress = Progress(
      copier: RoundCopier(
        pipeline: pipeline, cancellation: cancellation, bytesPerSecondLimit: bytesPerSecondLimit),
      meter: ProgressMeter(round: plan.index, pagesExpected: pagesExpected, onEvent))
    var described: [RoundMember] = []
    do throws(RoundFailure) {
      let finished = try pipeline.write(with: writer) { () throws(RoundFailure) in
        for member in members {
          let isTarget = member === target
          do throws(PredumpError) {
            let (stops, news) = try member.lookForPinnedWriters(scan)
            if let news { onEvent(.warning(news)) }
            var found = member.described(try member.view.addressSpace(isFrozen: false))
            if !isTarget { pipeline.beginProcess(member.pid) }
            do throws(RoundFailure) {
              try copy(member, &found.addressSpace.vmas, stops: stops, &progress)
            } catch {
              let explained = member.view.explain(error)
              guard !isTarget, case .targetGone = explained else { throw explained }
              progress.copier.flush()
              found.isGone = true
            }
            described.append(found)
          } catch {
            guard !isTarget, case .targetGone = error else { throw .other(error) }
          }
        }
      }
      return outcome(finished, described, progress)
    } catch { throw target.view.explain(error) }
  }

  private func outcome(
    _ writer: consuming RoundWriter, _ members: [RoundMember], _ progress: Progress
  ) -> Outcome {
    var statistics = RoundStatistics()
    statistics.freezingMicroseconds = progress.freezingNanoseconds / 1000
    statistics.frozenMicroseconds = progress.stopNanoseconds / 1000
    statistics.copyMicroseconds = progress.copier.counters.nanoseconds / 1000
    statistics.wallMicroseconds = (MonotonicClock.now - plan.began) / 1000
    statistics.pagesScanned = members.pageCount
    return Outcome(
      written: WrittenRound(writer: writer, members: members, statistics: statistics),
      counters: progress.copier.counters, scanStopNanoseconds: progress.stopNanoseconds)
  }

  /// One process's part of the round.
  private func copy(
    _ member: TreeMember, _ vmas: inout [VMARecord], stops: Bool, _ progress: inout Progress
  ) throws(RoundFailure) {
    progress.copier.beginProcess(debt: member.tracker.debt)
    if stops {
      let planned = try scanStopped(member, &vmas, &progress)
      try copy(planned, &vmas, member, &progress)
    } else {
      try register(&vmas, member)
      try copyAll(&vmas, member, &progress)
    }
    progress.copier.flush()
    // After an exit or execve the scans found nothing, which would be stored as holes.
    if member.view.memory.isAddressSpaceGone { throw .copy(.addressSpaceGone) }
    member.tracker.assertDebtIsPaid()
    member.populated = progress.copier.populated
  }

  private func register(_ vmas: inout [VMARecord], _ member: TreeMember) throws(RoundFailure) {
    let refusals: [DirtyTracker.Refusal]
    do throws(KernelError) { refusals = try member.tracker.register(&vmas) } catch {
      throw .kernel(error)
    }
    for refusal in refusals where plan.index == 1 {
      onEvent(
        .warning(
          "\(hexAddress(refusal.range.start))-\(hexAddress(refusal.range.end)) cannot be tracked "
            + "(\(refusal.error.errno.description)): it is taken whole in the freeze"))
    }
  }

  private func copyAll(
    _ vmas: inout [VMARecord], _ member: TreeMember, _ progress: inout Progress
  ) throws(RoundFailure) {
    var cursor = PopulatedSet.Cursor(member.populated)
    for index in vmas.indices {
      do throws(ScanFailure<CopyFailure>) {
        try member.tracker.scan(vmas[index], isFrozen: false, previous: &cursor) {
          (range, fate) throws(CopyFailure) in
          try copy(range, fate, &vmas[index], &progress.copier, member)
          progress.meter.report(pagesDone: progress.copier.counters.pages)
          plan.faults.reach(.midRound)
        }
      } catch { throw RoundFailure(error) }
    }
  }

  private func copy(
    _ range: PageRange, _ fate: DirtyTracker.Fate, _ record: inout VMARecord,
    _ copier: inout RoundCopier, _ member: TreeMember
  ) throws(CopyFailure) {
    switch fate {
    case .fromParent:
      try copier.takeFromParent(range)
      record.pagesFromParent += range.pageCount
    case .store:
      record.pagesStored += try copier.store(range, flags: RoundPlan.presentFlags(of: record)) {
        (address, buffer) throws(KernelError) in
        try member.view.memory.readPages(at: address, into: buffer)
      }
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
    _ member: TreeMember, _ vmas: inout [VMARecord], _ progress: inout Progress
  ) throws(RoundFailure) -> [Planned] {
    var planned: [Planned] = []
    let frozen: FrozenProcess
    do throws(TraceError) {
      frozen = try FrozenProcess(
        freezing: member.view.process, timeoutNanoseconds: freezeTimeoutNanoseconds)
    } catch { throw .freeze(error) }
    progress.freezingNanoseconds += frozen.freezingNanoseconds
    do throws(PredumpError) { vmas = try member.view.addressSpace(isFrozen: true).vmas } catch {
      throw .other(error)
    }
    try register(&vmas, member)
    var cursor = PopulatedSet.Cursor(member.populated)
    for index in vmas.indices {
      do throws(ScanFailure<CopyFailure>) {
        try member.tracker.scan(vmas[index], isFrozen: false, previous: &cursor) {
          (range, fate) throws(CopyFailure) in
          planned.append(Planned(range: range, fate: fate, vma: index))
        }
      } catch { throw RoundFailure(error) }
    }
    do throws(TraceError) {
      progress.stopNanoseconds += try frozen.thaw(leaving: .running)
    } catch { throw .freeze(error) }
    return planned
  }

  private func copy(
    _ planned: [Planned], _ vmas: inout [VMARecord], _ member: TreeMember,
    _ progress: inout Progress
  ) throws(RoundFailure) {
    do throws(CopyFailure) {
      for item in planned {
        try copy(item.range, item.fate, &vmas[item.vma], &progress.copier, member)
        progress.meter.report(pagesDone: progress.copier.counters.pages)
      }
    } catch { throw .copy(error) }
    plan.faults.reach(.midRound)
  }
}
