internal import Images
internal import Kernel

// What the readers of a round tell when it was planned already: pages that were not there, and pages
// that the parent holds as they are.
extension AddressSpace {
  /// Corrects what the VMAs are said to have stored.
  mutating func account(for read: RoundReader.Outcome) {
    forEachPiece(of: read.missing) { vma, pages in
      vma.pagesStored -= min(pages, vma.pagesStored)
    }
    forEachPiece(of: read.unchanged) { vma, pages in vma.take(unchanged: pages) }
  }

  /// Calls `body` with each VMA that holds pages of `ranges`, which are in any order, and how many.
  private mutating func forEachPiece(
    of ranges: [PageRange], _ body: (inout VMARecord, UInt64) -> Void
  ) {
    if ranges.isEmpty { return }
    var set = PopulatedSet()
    for range in ranges.sorted(by: { $0.start < $1.start }) { set.append(range) }
    var cursor = PopulatedSet.Cursor(set)
    for index in vmas.indices {
      cursor.split(vmas[index].range) { piece, isHeld in
        if isHeld { body(&vmas[index], piece.pageCount) }
      }
    }
  }
}

extension VMARecord {
  /// Pages that were counted as stored are taken from the parent.
  mutating func take(unchanged pages: UInt64) {
    let pages = min(pages, pagesStored)
    pagesStored -= pages
    pagesFromParent += pages
  }
}
