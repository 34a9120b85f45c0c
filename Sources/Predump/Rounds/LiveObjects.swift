internal import Images
internal import Kernel
internal import SystemPackage

// Shared memory objects in a round of the running process. Others write them unseen, so nothing that
// a live round finds can be relied upon in the freeze, which compares every page once more. But what
// a live round has stored already is what the freeze need not: it then costs reading, not copying.
// Therefore every live round compares, the later ones too: each moves what changed meanwhile out of
// the freeze, and reading an object is cheap beside the compression of a round.
extension LiveRound {
  /// An object in this round.
  struct ObjectPlan {
    var id: UInt64
    /// The process (index of its part) and VMA (index) whose page counts it is in.
    var part: Int
    var vma: Int
    /// What the round holds of it.
    var populated: PopulatedSet
    var reader: RoundReader
  }

  /// Plans what the chain lacks of the objects that the processes map.
  func planObjects(
    _ parts: inout [Part], _ copier: inout RoundCopier, _ pipeline: ChunkPipeline,
    _ known: ObjectHistories, _ comparer: PageComparer
  ) throws(RoundFailure) -> [ObjectPlan] {
    var plans: [ObjectPlan] = []
    for object in SharedObjects.list(members: parts.map(\.described.addressSpace.vmas)) {
      guard let open = try open(object, parts[object.member].member) else { continue }
      let history: StreamHistory
      do throws(KernelError) {
        history = try known.history(object.id, byteCount: try open.file.byteCount())
      } catch { throw .kernel(error) }
      let reader = RoundReader(.object(open), history)
      copier.flush()
      pipeline.beginSharedObject(object.id)
      if let confirmed = plan.confirmedRounds {
        history.begin(round: plan.index, confirmed: confirmed)
      }
      copier.begin(reader, history)
      var record = parts[object.member].described.addressSpace.vmas[object.vma]
      try SharedObjects.scan(open, history, comparer, faults: engineFaults) {
        (range, fate) throws(CopyFailure) in
        switch fate {
        case .fromParent:
          try copier.takeCompared(range)
          record.pagesFromParent += range.pageCount
        case .store:
          try copier.plan(range, flags: .present)
          record.pagesStored += range.pageCount
        }
      }
      parts[object.member].described.addressSpace.vmas[object.vma] = record
      plans.append(
        ObjectPlan(
          id: object.id, part: object.member, vma: object.vma, populated: copier.populated,
          reader: reader))
    }
    copier.flush()
    return plans
  }

  /// Nil if it is no longer mapped there: the next round meets it where it is then. Whether the whole
  /// process is gone is asked when the round has come to its end.
  private func open(_ object: SharedObjects.Object, _ member: TreeMember)
    throws(RoundFailure) -> OpenObject?
  {
    do throws(KernelError) {
      return OpenObject(try member.view.process.open(object.linkName))
    } catch {
      if error.errno == .noSuchFileOrDirectory || error.errno == .noSuchProcess { return nil }
      throw .kernel(error)
    }
  }
}
