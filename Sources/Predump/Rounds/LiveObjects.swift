internal import Images
internal import Kernel
internal import SystemPackage

// Shared memory objects in a round of the running process. Others write them unseen, so nothing that
// a live round finds can be relied upon in the freeze, which compares every page once more. But what
// a live round has stored already is what the freeze need not: it then costs reading, not copying.
// Therefore every live round compares, the later ones too: each moves what changed meanwhile out of
// the freeze, and reading an object is cheap beside the compression of a round.
extension LiveRound {
  /// Stores what the chain lacks of the objects that `vmas` map.
  ///
  /// - Returns: what the round holds of each.
  func copyObjects(
    _ vmas: inout [VMARecord], _ copier: inout RoundCopier, _ view: borrowing TargetView,
    _ history: inout ChainHistory, _ comparer: PageComparer
  ) throws(RoundFailure) -> [UInt64: PopulatedSet] {
    var holdings: [UInt64: PopulatedSet] = [:]
    for object in SharedObjects.list(vmas) {
      guard let open = try open(object, view) else { continue }
      let known: StreamHistory
      do throws(KernelError) {
        known = try history.object(object.id, byteCount: try open.file.byteCount())
      } catch { throw .kernel(error) }
      copier.begin(object.id, known)
      try SharedObjects.scan(open, known, comparer, faults: faults) {
        (range, fate) throws(CopyFailure) in
        switch fate {
        case .fromParent:
          try copier.takeCompared(range)
          vmas[object.vma].pagesFromParent += range.pageCount
        case .store:
          vmas[object.vma].count(
            try copier.store(range, flags: .present) { (offset, buffer) throws(KernelError) in
              try SharedObjects.readPages(of: open.file, at: offset, into: buffer)
            })
        }
      }
      holdings[object.id] = copier.populated
    }
    copier.flush()
    return holdings
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

extension VMARecord {
  /// Adds pages that were to be stored.
  mutating func count(_ pages: StoredPages) {
    pagesStored += pages.stored
    pagesFromParent += pages.unchanged
  }
}
