/// What a scan owes. Reporting a page as written while protecting it takes the page's written bit:
/// no later scan tells of that write. Each such page must be stored, or be found unreadable, before
/// its round ends; debug builds keep account.
package final class ScanDebt {
  private var owed: [PageRange] = []
  private var paid: [PageRange] = []

  package init() {}

  /// An account in debug builds; otherwise nil, and nothing is counted.
  package static func ofThisBuild() -> ScanDebt? {
    #if DEBUG
      ScanDebt()
    #else
      nil
    #endif
  }

  /// A protecting scan reported these pages as written.
  package func owe(_ range: PageRange) { owed.append(range) }

  /// These pages were stored, or cannot be read.
  package func pay(_ range: PageRange) {
    if let last = paid.last, last.end == range.start {
      paid[paid.count - 1].end = range.end
    } else {
      paid.append(range)
    }
  }

  /// Ends a round.
  ///
  /// - Returns: the first pages that were owed and not paid; nil if all is well.
  package func settle() -> PageRange? {
    defer { (owed, paid) = ([], []) }
    let payments = paid.sorted { $0.start < $1.start }
    var next = 0
    for debt in owed.sorted(by: { $0.start < $1.start }) {
      var position = debt.start
      while next < payments.count, payments[next].end <= position { next += 1 }
      var index = next
      while index < payments.count, payments[index].start <= position, position < debt.end {
        position = max(position, payments[index].end)
        index += 1
      }
      if position < debt.end { return PageRange(start: position, end: debt.end) }
    }
    return nil
  }
}
