internal import Images
internal import Kernel
internal import SystemPackage

/// A round taken from the running process: scan and protect a range, then copy it, VMA by VMA.
///
/// The order is what loses nothing: a page that is written after its protection, even before its
/// copy, is dirty again for the next round.
struct LiveRound: ~Copyable {
  let plan: RoundPlan
  let cancellation: Cancellation
  /// Pages that the round is expected to copy.
  let pagesExpected: UInt64
  let onEvent: @Sendable (PredumpEvent) -> Void

  /// What the next round and the policy need to know.
  struct Outcome: ~Copyable {
    var written: WrittenRound
    var populated: PopulatedSet
    var counters: CopyCounters

    /// Gives up the round, for its commit.
    consuming func takeWritten() -> WrittenRound { written }
  }

  /// Copies what changed since `previous`, with the pipeline writing behind.
  func run(
    _ view: inout TargetView, _ tracker: inout DirtyTracker, _ pipeline: ChunkPipeline,
    images: borrowing ImagesDirectory, previous: PopulatedSet
  ) throws(PredumpError) -> Outcome {
    var space = try view.addressSpace(isFrozen: false)
    let refusals: [DirtyTracker.Refusal]
    do throws(KernelError) { refusals = try tracker.register(&space.vmas) } catch {
      throw view.explain(error)
    }
    for refusal in refusals where plan.index == 1 {
      onEvent(
        .warning(
          "\(hexAddress(refusal.range.start))-\(hexAddress(refusal.range.end)) cannot be tracked "
            + "(\(refusal.error.errno.description)): it is taken whole in the freeze"))
    }
    let writer = try plan.writer(in: images, pid: view.process.pid)
    var copier = RoundCopier(pipeline: pipeline, cancellation: cancellation)
    do throws(RoundFailure) {
      let finished = try pipeline.write(with: writer) { () throws(RoundFailure) in
        try copyAll(&space.vmas, &copier, view, tracker, previous: previous)
      }
      var statistics = RoundStatistics()
      statistics.copyMicroseconds = copier.counters.nanoseconds / 1000
      statistics.wallMicroseconds = (MonotonicClock.now - plan.began) / 1000
      statistics.pagesScanned = space.vmas.reduce(0) { $0 + $1.pagesStored + $1.pagesFromParent }
      return Outcome(
        written: WrittenRound(writer: finished, addressSpace: space, statistics: statistics),
        populated: copier.populated, counters: copier.counters)
    } catch { throw view.explain(error) }
  }

  private func copyAll(
    _ vmas: inout [VMARecord], _ copier: inout RoundCopier, _ view: borrowing TargetView,
    _ tracker: borrowing DirtyTracker, previous: PopulatedSet
  ) throws(RoundFailure) {
    var cursor = PopulatedSet.Cursor(previous)
    var progress = ProgressMeter(round: plan.index, pagesExpected: pagesExpected, onEvent)
    for index in vmas.indices {
      let record = vmas[index]
      let flags = RoundPlan.presentFlags(of: record)
      do throws(ScanFailure<CopyFailure>) {
        try tracker.scan(record, isFrozen: false, previous: &cursor) {
          (range, fate) throws(CopyFailure) in
          switch fate {
          case .fromParent:
            try copier.takeFromParent(range)
            vmas[index].pagesFromParent += range.pageCount
          case .store:
            vmas[index].pagesStored += try copier.store(range, flags: flags) {
              (address, buffer) throws(KernelError) in
              try view.memory.readPages(at: address, into: buffer)
            }
          }
          progress.report(pagesDone: copier.counters.pages)
          plan.faults.reach(.midRound)
        }
      } catch { throw RoundFailure(error) }
    }
    copier.flush()
    // After an exit or execve the scans found nothing, which would be stored as holes.
    if view.memory.isAddressSpaceGone { throw .copy(.addressSpaceGone) }
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
