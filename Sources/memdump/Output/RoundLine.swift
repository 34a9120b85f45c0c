internal import Images
internal import Kernel
internal import Predump

/// A round in one line of a dump's table. The widths are fixed: the rounds to come are not known.
enum RoundLine {
  private static let widths = [5, 11, 11, 9, 8, 8, 6, 10, 10, 7]

  /// The columns' titles.
  static var head: String {
    line([
      "round", "written", "from parent", "zero", "in", "out", "ratio", "rate", "dirty", "freeze",
    ])
  }

  /// The line of a round.
  static func text(_ report: RoundReport) -> String {
    let isFrozen = report.kind == .frozen
    let rate = Units.perSecond(report.bytesIn, in: report.wallNanoseconds)
    return line([
      isFrozen ? "final" : String(report.index),
      Units.count(report.totals.pagesStored),
      Units.count(report.totals.pagesFromParent),
      Units.count(report.totals.pagesZero),
      Units.bytes(report.bytesIn),
      Units.bytes(report.totals.payloadBytes),
      Units.ratioText(report.bytesIn, report.totals.payloadBytes),
      rate.map(Units.rate) ?? "-",
      isFrozen ? "" : Units.rate(report.dirtyPagesPerSecond * Double(pageBytes)),
      isFrozen ? "" : Units.duration(report.estimatedFreezeNanoseconds),
    ])
  }

  private static func line(_ cells: [String]) -> String {
    let text = zip(cells, widths).map { $0.padded(to: $1, .right) }.joined(separator: " ")
    return String(text.reversed().drop { $0 == " " }.reversed())
  }
}
