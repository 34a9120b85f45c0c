internal import Images
internal import Kernel
internal import SystemPackage
internal import Tracee

/// What a round is called, what it builds on, and how it is stored.
struct RoundPlan: Sendable {
  var index: Int
  var name: String
  var parent: ParentRound?
  var kind: RoundKind
  /// Whether the target's descendants are dumped with it.
  var includesDescendants: Bool
  var compression: PageCompression
  var sync: Bool
  var faults: FaultPlan
  /// Rounds that are known to be safe, where others may be lost and taken again; nil where a lost
  /// round ends the dump.
  var confirmedRounds: Int?
  var startedAt = WallClock.secondsSince1970
  var uptimeMicroseconds = MonotonicClock.sinceBoot / 1000
  var began = MonotonicClock.now

  /// Opens the writer of the round's directory.
  func writer(in images: borrowing ImagesDirectory, pid: Int32) throws(PredumpError) -> RoundWriter
  {
    do throws(ImageError) {
      return try RoundWriter(
        in: images.place, name: name, pid: pid, parent: parent,
        compression: compression, sync: sync)
    } catch { throw PredumpError(error) }
  }

  /// Flags of a present page in the VMA: CRIU restores pages of plain anonymous memory lazily if
  /// asked to, and no others (criu: vma_entry_can_be_lazy).
  static func presentFlags(of record: VMARecord) -> PagemapFlags {
    let (isPrivate, isAnonymous, isLocked, isHuge) = (
      record.mapFlags & 0x02 != 0, record.mapFlags & 0x20 != 0, record.mapFlags & 0x2000 != 0,
      record.kind == .hugetlb
    )
    let special = record.kind == .vdso || record.kind == .vvar
    return isPrivate && isAnonymous && !isLocked && !isHuge && !special
      ? .presentLazily : .present
  }
}

/// A round that was copied and written but not yet committed.
struct WrittenRound: ~Copyable {
  var writer: RoundWriter
  /// What was written of each process, the target's first.
  var members: [RoundMember]
  var statistics: RoundStatistics

  /// Writes all that is left to write.
  consuming func finish(_ plan: RoundPlan) throws(PredumpError) -> FinishedRound {
    var description = RoundDescription(
      index: plan.index, kind: plan.kind, members: members, statistics: statistics,
      uptimeMicroseconds: plan.uptimeMicroseconds, startedAt: plan.startedAt)
    description.includesDescendants = plan.includesDescendants
    do throws(ImageError) { return try writer.finish(description) } catch {
      throw PredumpError(error)
    }
  }
}

extension FinishedRound {
  /// Makes it durable, names it, and enters it in the session's record.
  consuming func publish(_ plan: RoundPlan, _ entry: ImagesDirectory.Entry) throws(ImageError) {
    let faults = plan.faults
    let isFinal = plan.kind == .frozen
    try publish { faults.reach(isFinal ? .beforeFinalRename : .beforeRename) }
    faults.reach(isFinal ? .afterFinalRename : .afterRename)
    try entry.write()
    if !isFinal { faults.reach(.afterRecord) }
  }
}

extension ChunkPipeline {
  /// Runs `copy` between the begin and the end of a round's writing.
  ///
  /// - Returns: the writer, for its commit. When anything fails it is dropped, and its directory
  ///   with it.
  func write(
    with writer: consuming RoundWriter, _ copy: () throws(RoundFailure) -> Void
  ) throws(RoundFailure) -> RoundWriter {
    begin(writer)
    var failure: RoundFailure?
    do throws(RoundFailure) { try copy() } catch { failure = error }
    let written: RoundWriter?
    do throws(ImageError) { written = try end() } catch { throw .images(error) }
    if let failure { throw failure }
    guard let written else { throw .copy(.pipeline) }
    return written
  }
}

/// Why a round came to nothing.
enum RoundFailure: Error {
  /// Writing failed: the disk is full, or broken.
  case images(ImageError)
  /// Copying failed, or was stopped.
  case copy(CopyFailure)
  /// The kernel refused a scan.
  case kernel(KernelError)
  /// The process could not be stopped for a scan.
  case freeze(TraceError)
  /// What is explained already.
  case other(PredumpError)

  init(_ failure: ScanFailure<CopyFailure>) {
    switch failure {
    case .kernel(let error): self = .kernel(error)
    case .body(let failure): self = .copy(failure)
    }
  }
}

extension [RoundMember] {
  /// Pages that a round has of all processes, stored or taken from its parent.
  var pageCount: UInt64 {
    reduce(0) { sum, member in
      member.addressSpace.vmas.reduce(sum) { $0 + $1.pagesStored + $1.pagesFromParent }
    }
  }
}

extension TargetView {
  /// Turns a failed round into what the user has to know.
  func explain(_ failure: RoundFailure) -> PredumpError {
    switch failure {
    case .images(let error): PredumpError(error)
    case .freeze(let error): PredumpError(error)
    case .other(let error): error
    case .kernel(let error), .copy(.kernel(let error)): explain(error)
    case .copy(.addressSpaceGone): end
    case .copy(.interrupted): .interrupted
    // The pipeline's own end reports the writer's failure; without one the target is not to blame.
    case .copy(.pipeline):
      .kernel(KernelError(call: "write", subject: "round", errno: .ioError))
    }
  }
}
