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
  let engineFaults: EngineFaultPlan
  let onEvent: @Sendable (PredumpEvent) -> Void

  /// What the next round and the policy need to know.
  struct Outcome: ~Copyable {
    var written: WrittenRound
    var counters: CopyCounters
    /// Pages that were read and taken from the parent: it holds the same bytes.
    var unchangedPages: UInt64
    /// Pages of shared objects that were compared with what the chain holds.
    var compared: CopyCounters
    /// How long processes stood still for the scan (ns), in sum; 0 in a live scan.
    var scanStopNanoseconds: UInt64

    /// Gives up the round, for its commit.
    consuming func takeWritten() -> WrittenRound { written }
  }

  /// A process's part of the round.
  struct Part {
    let member: TreeMember
    let reader: RoundReader
    /// What the round holds of it, and what is planned.
    var populated = PopulatedSet()
    var described: RoundMember
    /// What tracking found written.
    var written = PopulatedSet()
  }

  /// What is kept from process to process.
  private struct Progress {
    var copier: RoundCopier
    var meter: ProgressMeter
    var parts: [Part] = []
    /// Pages of the processes before.
    var pagesBefore: UInt64 = 0
    var stopNanoseconds: UInt64 = 0
    var freezingNanoseconds: UInt64 = 0
  }

  /// Copies what changed in `members`, the target's first, with the pipeline writing behind.
  ///
  /// A descendant that exits or calls execve meanwhile is left out, or marked as gone.
  func run(
    _ members: [TreeMember], _ pipeline: ChunkPipeline, images: borrowing ImagesDirectory,
    _ known: ObjectHistories, _ comparer: PageComparer
  ) throws(PredumpError) -> Outcome {
    let target = members[0]
    let writer = try plan.writer(in: images, pid: target.pid)
    var progress = Progress(
      copier: RoundCopier(
        pipeline: pipeline, cancellation: cancellation, bytesPerSecondLimit: bytesPerSecondLimit),
      meter: ProgressMeter(round: plan.index, pagesExpected: pagesExpected, onEvent))
    var objects: [ObjectPlan] = []
    do throws(RoundFailure) {
      let finished = try pipeline.write(with: writer) { () throws(RoundFailure) in
        for member in members {
          do throws(PredumpError) {
            let (stops, news) = try member.lookForPinnedWriters(scan)
            if let news { onEvent(.warning(news)) }
            let space = try member.view.addressSpace(isFrozen: false)
            if member !== target { pipeline.beginProcess(member.pid) }
            try plan(member, space, stops: stops, isTarget: member === target, &progress)
          } catch {
            guard member !== target, case .targetGone = error else { throw .other(error) }
          }
        }
        objects = try planObjects(&progress.parts, &progress.copier, pipeline, known, comparer)
      }
      known.finish(
        objects.reduce(into: [:]) { held, object in held[object.id] = object.populated })
      return try outcome(finished, progress, objects, compared: comparer.takeCounters())
    } catch { throw target.view.explain(error) }
  }

  /// Waits for nothing: the pipeline has come to its end.
  private func outcome(
    _ writer: consuming RoundWriter, _ progress: Progress, _ objects: [ObjectPlan],
    compared: CopyCounters
  ) throws(RoundFailure) -> Outcome {
    var counters = CopyCounters()
    var unchanged: UInt64 = 0
    var described: [RoundMember] = []
    for (index, part) in progress.parts.enumerated() {
      let read: RoundReader.Outcome
      do throws(KernelError) { read = try part.reader.finish() } catch {
        throw .other(part.member.view.explain(error))
      }
      counters.add(read.counters)
      var found = part.described
      // After an exit or execve scans find nothing and reads neither: not to be stored as holes.
      if part.member.view.memory.isAddressSpaceGone {
        if index == 0 { throw .copy(.addressSpaceGone) }
        found.isGone = true
      }
      found.addressSpace.account(for: read)
      unchanged += read.unchangedCount
      for object in objects where object.part == index {
        do throws(KernelError) {
          found.addressSpace.vmas[object.vma]
            .take(unchanged: try object.reader.finish().unchangedCount)
        } catch { throw .kernel(error) }
      }
      described.append(found)
      part.member.history.held = part.populated.subtracting(read.missing)
    }
    var statistics = RoundStatistics()
    statistics.freezingMicroseconds = progress.freezingNanoseconds / 1000
    statistics.frozenMicroseconds = progress.stopNanoseconds / 1000
    statistics.copyMicroseconds = counters.nanoseconds / 1000
    statistics.wallMicroseconds = (MonotonicClock.now - plan.began) / 1000
    statistics.pagesScanned = described.pageCount
    return Outcome(
      written: WrittenRound(writer: writer, members: described, statistics: statistics),
      counters: counters, unchangedPages: unchanged, compared: compared,
      scanStopNanoseconds: progress.stopNanoseconds)
  }

  /// One process's part of the round.
  private func plan(
    _ member: TreeMember, _ space: AddressSpace, stops: Bool, isTarget: Bool,
    _ progress: inout Progress
  ) throws(PredumpError) {
    var part = Part(
      member: member, reader: RoundReader(.memory(member.view.sharedMemory), member.history),
      described: member.described(space))
    if let confirmed = plan.confirmedRounds {
      member.history.begin(round: plan.index, confirmed: confirmed)
    }
    progress.copier.begin(part.reader, member.history, debt: member.tracker.debt)
    do throws(RoundFailure) {
      if stops {
        let planned = try scanStopped(&part, &progress)
        try plan(planned, &part, &progress)
      } else {
        try register(&part.described.addressSpace.vmas, member)
        try planAll(&part, &progress)
      }
      member.tracker.assertDebtIsPaid()
    } catch {
      let explained = member.view.explain(error)
      guard !isTarget, case .targetGone = explained else { throw explained }
      part.described.isGone = true
    }
    progress.copier.flush()
    if plan.index > member.since { member.tracker.hot.observe(part.written) }
    progress.pagesBefore += part.reader.progress.pages
    part.populated = progress.copier.populated
    progress.parts.append(part)
  }

  private func register(_ vmas: inout [VMARecord], _ member: TreeMember) throws(RoundFailure) {
    let refusals: [DirtyTracker.Refusal]
    do throws(KernelError) {
      let isFirst = member.history.held.runs.isEmpty
      refusals = try member.tracker.register(&vmas, clears: !isFirst) { () throws(KernelError) in
        try member.view.process.maps()
      }
    } catch { throw .kernel(error) }
    for refusal in refusals where plan.index == 1 {
      onEvent(
        .warning(
          "\(hexAddress(refusal.range.start))-\(hexAddress(refusal.range.end)) cannot be tracked "
            + "(\(refusal.error.errno.description)): it is taken whole in the freeze"))
    }
  }

  private func planAll(_ part: inout Part, _ progress: inout Progress) throws(RoundFailure) {
    let (member, reader) = (part.member, part.reader)
    var cursor = PopulatedSet.Cursor(member.history.held)
    for index in part.described.addressSpace.vmas.indices {
      let record = part.described.addressSpace.vmas[index]
      do throws(ScanFailure<CopyFailure>) {
        try member.tracker.scan(record, isFrozen: false, previous: &cursor) {
          (range, fate) throws(CopyFailure) in
          if fate == .store, record.treatment == .tracked { part.written.append(range) }
          try plan(
            range, fate, &part.described.addressSpace.vmas[index], &progress.copier)
          progress.meter.report(pagesDone: progress.pagesBefore + reader.progress.pages)
          plan.faults.reach(.midRound)
        }
      } catch {
        // The scan may have taken written bits that nobody was told of.
        member.history.willStore(record.range)
        throw RoundFailure(error)
      }
    }
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

  private func scanStopped(_ part: inout Part, _ progress: inout Progress)
    throws(RoundFailure) -> [Planned]
  {
    let member = part.member
    var planned: [Planned] = []
    let frozen: FrozenProcess
    do throws(TraceError) {
      frozen = try FrozenProcess(
        freezing: member.view.process, timeoutNanoseconds: freezeTimeoutNanoseconds)
    } catch { throw .freeze(error) }
    progress.freezingNanoseconds += frozen.freezingNanoseconds
    do throws(PredumpError) {
      part.described.addressSpace = try member.view.addressSpace(isFrozen: true)
    } catch { throw .other(error) }
    try register(&part.described.addressSpace.vmas, member)
    var cursor = PopulatedSet.Cursor(member.history.held)
    for (index, record) in part.described.addressSpace.vmas.enumerated() {
      do throws(ScanFailure<CopyFailure>) {
        try member.tracker.scan(record, isFrozen: false, previous: &cursor) {
          (range, fate) throws(CopyFailure) in
          planned.append(Planned(range: range, fate: fate, vma: index))
          // Not when it is copied: its written bit is gone now.
          if fate == .store { member.history.willStore(range) }
        }
      } catch { throw RoundFailure(error) }
    }
    do throws(TraceError) {
      progress.stopNanoseconds += try frozen.thaw(leaving: .running)
    } catch { throw .freeze(error) }
    return planned
  }

  private func plan(_ planned: [Planned], _ part: inout Part, _ progress: inout Progress)
    throws(RoundFailure)
  {
    let reader = part.reader
    do throws(CopyFailure) {
      for item in planned {
        let record = part.described.addressSpace.vmas[item.vma]
        if item.fate == .store, record.treatment == .tracked { part.written.append(item.range) }
        try plan(
          item.range, item.fate, &part.described.addressSpace.vmas[item.vma], &progress.copier)
        progress.meter.report(pagesDone: progress.pagesBefore + reader.progress.pages)
      }
    } catch { throw .copy(error) }
    plan.faults.reach(.midRound)
  }
}
