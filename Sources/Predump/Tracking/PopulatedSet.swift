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

  /// Splits ranges, asked for in ascending order, into what the set holds and what it lacks.
  struct Cursor {
    private let runs: [PageRange]
    private var index = 0

    init(_ set: PopulatedSet) { runs = set.runs }

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
