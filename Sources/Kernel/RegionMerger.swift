/// Merges what repeated calls report: categories of a page that is reported twice are united.
///
/// One call reports in ascending order, each page once. The next call may report pages again that
/// lie at or after the point of resumption, with the written bit already taken.
package struct RegionMerger: Sendable {
  /// What the calls before reported beyond their end of walk. Mostly empty.
  private var carried: [PageRegion] = []
  /// What the current call reports.
  private var current: [PageRegion] = []
  /// `carried`, while it is made anew.
  private var earlier: [PageRegion] = []

  package init() {}

  /// Whether the calls before reported nothing that is not handed over.
  var isEmpty: Bool { carried.isEmpty && current.isEmpty }

  /// Forgets everything but its storage.
  package mutating func reset() {
    carried.removeAll(keepingCapacity: true)
    current.removeAll(keepingCapacity: true)
  }

  /// Takes a region of the current call.
  package mutating func add(_ region: PageRegion) { current.append(region) }

  /// Ends the current call, and hands over what lies before `position`, which no later call reports
  /// again.
  package mutating func flush<Failure: Error>(
    before position: UInt64, _ body: (PageRegion) throws(Failure) -> Void
  ) throws(Failure) {
    // Mostly there is nothing to merge.
    if carried.isEmpty, (current.last?.range.end ?? 0) <= position {
      for region in current { try body(region) }
      current.removeAll(keepingCapacity: true)
      return
    }
    swap(&carried, &earlier)
    carried.removeAll(keepingCapacity: true)
    var left = Rest(count: earlier.count)
    var right = Rest(count: current.count)
    // One pass over both lists: each piece ends where a region of either begins or ends.
    while !(left.isEmpty && right.isEmpty) {
      if !left.isEmpty { left.advance(to: earlier[left.index]) }
      if !right.isEmpty { right.advance(to: current[right.index]) }
      let start = min(left.start, right.start)
      var end = UInt64.max
      let before = left.cut(&end, from: start)
      let after = right.cut(&end, from: start)
      let categories = Self.merged(before, after)
      left.consume(until: end)
      right.consume(until: end)
      let head = PageRange(start: start, end: min(end, position))
      if !head.isEmpty { try body(PageRegion(range: head, categories: categories)) }
      let tail = PageRange(start: max(start, position), end: end)
      if !tail.isEmpty { carried.append(PageRegion(range: tail, categories: categories)) }
    }
    current.removeAll(keepingCapacity: true)
  }

  /// Written is what either report calls so. But a page that was the kernel's page of zeros, or a guard
  /// page, in one report alone holds data, or held it: between the two it was written, or dropped.
  private static func merged(_ before: PageCategories?, _ after: PageCategories?)
    -> PageCategories
  {
    guard let before, let after else { return before ?? after ?? [] }
    return before.union(after).subtracting(.dataless)
      .union(before.intersection(after).intersection(.dataless))
  }

  /// What is left of a list: from somewhere in its region `index` on.
  private struct Rest {
    let count: Int
    var index = 0
    /// Up to where everything was handed over.
    var done: UInt64 = 0
    /// Where the rest of the region begins and ends; `.max` behind the last one.
    var start = UInt64.max
    var end = UInt64.max
    var categories: PageCategories = []

    init(count: Int) { self.count = count }

    var isEmpty: Bool { index == count }

    mutating func advance(to region: PageRegion) {
      start = max(region.range.start, done)
      end = region.range.end
      categories = region.categories
    }

    /// Ends the piece that begins at `start` where this region does, or before this region.
    ///
    /// - Returns: the region's categories, if the piece is a part of it.
    func cut(_ end: inout UInt64, from start: UInt64) -> PageCategories? {
      if isEmpty { return nil }
      let isPart = self.start == start
      end = min(end, isPart ? self.end : self.start)
      return isPart ? categories : nil
    }

    mutating func consume(until position: UInt64) {
      if isEmpty { return }
      done = position
      if end <= position {
        index += 1
        (start, end) = (.max, .max)
      }
    }
  }
}
