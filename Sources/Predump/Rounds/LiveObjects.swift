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
    /// The VMA (index) whose page counts it is in.
    var vma: Int
    /// What the round holds of it.
    var populated: PopulatedSet
    var reader: RoundReader
  }

  /// Plans what the chain lacks of the objects that `vmas` map.
  func planObjects(
    _ vmas: inout [VMARecord], _ copier: inout RoundCopier, _ view: borrowing TargetView,
    _ history: inout ChainHistory, _ comparer: PageComparer
  ) throws(RoundFailure) -> [ObjectPlan] {
    var plans: [ObjectPlan] = []
    for object in SharedObjects.list(vmas) {
      guard let open = try open(object, view) else { continue }
      let known: StreamHistory
      do throws(KernelError) {
        known = try history.object(object.id, byteCount: try open.file.byteCount())
      } catch { throw .kernel(error) }
      let reader = RoundReader(.object(open), known)
      copier.begin(object.id, reader)
      try SharedObjects.scan(open, known, comparer, faults: faults) {
        (range, fate) throws(CopyFailure) in
        switch fate {
        case .fromParent:
          try copier.takeCompared(range)
          vmas[object.vma].pagesFromParent += range.pageCount
        case .store:
          try copier.plan(range, flags: .present)
          vmas[object.vma].pagesStored += range.pageCount
        }
      }
      plans.append(
        ObjectPlan(
          id: object.id, vma: object.vma, populated: copier.populated, reader: reader))
    }
    copier.flush()
    return plans
  }

  /// Nil if it is no longer mapped there: the next round meets it where it is then.
  private func open(_ object: SharedObjects.Object, _ view: borrowing TargetView)
    throws(RoundFailure) -> OpenObject?
  {
    do throws(KernelError) { return OpenObject(try view.process.open(object.linkName)) } catch {
      if error.errno == .noSuchFileOrDirectory, !view.memory.isAddressSpaceGone { return nil }
      throw .kernel(error)
    }
  }
}
