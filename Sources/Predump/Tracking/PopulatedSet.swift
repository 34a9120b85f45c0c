internal import Kernel

/// The pages that a round holds, stored or taken from its parent, as ascending runs.
///
/// The next round may take a page from its parent only if it is in here: a page that is clean but
/// absent was dropped and came back.
struct PopulatedSet: Sendable {
  private(set) var runs: [PageRange] = []

  /// Adds pages behind all others.
  mutating func append(_ range: PageRange) {
    if range.isEmpty { return }
    if let last = runs.last, last.end == range.start {
      runs[runs.count - 1].end = range.end
    } else {
      runs.append(range)
    }
  }

  /// The set without `ranges`, in any order.
  func subtracting(_ ranges: [PageRange]) -> PopulatedSet {
    if ranges.isEmpty { return self }
    var holes = PopulatedSet()
    for range in ranges.sorted(by: { $0.start < $1.start }) { holes.append(range) }
    var cursor = Cursor(holes)
    var rest = PopulatedSet()
    for run in runs {
      cursor.split(run) { piece, isHole in if !isHole { rest.append(piece) } }
    }
    return rest
  }

  /// How many pages it has.
  var pageCount: UInt64 { runs.reduce(0) { $0 + $1.pageCount } }

  /// The pages that both sets have.
  func intersection(_ other: PopulatedSet) -> PopulatedSet {
    var cursor = Cursor(other)
    var both = PopulatedSet()
    for run in runs {
      cursor.split(run) { piece, isHeld in if isHeld { both.append(piece) } }
    }
    return both
  }

  /// The pages that one of the sets has.
  func union(_ other: PopulatedSet) -> PopulatedSet {
    if other.runs.isEmpty { return self }
    if runs.isEmpty { return other }
    var all = PopulatedSet()
    var (left, right) = (runs[...], other.runs[...])
    while let next = [left.first, right.first].compactMap({ $0 }).min(by: { $0.start < $1.start }) {
      if next == left.first { left.removeFirst() } else { right.removeFirst() }
      let end = all.runs.last?.end ?? 0
      all.append(PageRange(start: max(next.start, end), end: max(next.end, end)))
    }
    return all
  }

  /// So many of its first pages, in so many runs at most.
  func prefix(pages: UInt64, runs limit: Int) -> PopulatedSet {
    var first = PopulatedSet()
    var left = pages
    for run in runs.prefix(limit) where left > 0 {
      first.append(PageRange(start: run.start, pageCount: min(left, run.pageCount)))
      left -= min(left, run.pageCount)
    }
    return first
  }

  /// Splits ranges, asked for in ascending order, into what the set holds and what it lacks.
  struct Cursor {
    private let runs: [PageRange]
    private var index = 0

    init(_ set: PopulatedSet) { runs = set.runs }

    /// For ranges from `address` on.
    init(_ set: PopulatedSet, from address: UInt64) {
      runs = set.runs
      var (low, high) = (0, runs.count)
      while low < high {
        let middle = (low + high) / 2
        if runs[middle].end <= address { low = middle + 1 } else { high = middle }
      }
      index = low
    }

    /// Whether the set holds the page at `address`. Addresses ascend from call to call.
    mutating func holds(_ address: UInt64) -> Bool {
      while index < runs.count, runs[index].end <= address { index += 1 }
      return index < runs.count && runs[index].start <= address
    }

    /// Calls `body` for the pieces of `range`, ascending, and whether the set holds them.
    mutating func split<Failure: Error>(
      _ range: PageRange, _ body: (PageRange, Bool) throws(Failure) -> Void
    ) throws(Failure) {
      var position = range.start
      while position < range.end {
        while index < runs.count, runs[index].end <= position { index += 1 }
        guard index < runs.count, runs[index].start < range.end else {
          try body(PageRange(start: position, end: range.end), false)
          return
        }
        let run = runs[index]
        if run.start > position {
          try body(PageRange(start: position, end: run.start), false)
          position = run.start
        }
        let end = min(run.end, range.end)
        try body(PageRange(start: position, end: end), true)
        position = end
      }
    }
  }
}
