/// Text in columns.
struct Table {
  /// On which side of a column its text is.
  enum Side: Sendable { case left, right }

  private let columns: [(title: String, side: Side)]
  private var rows: [[String]] = []

  init(_ columns: [(title: String, side: Side)]) { self.columns = columns }

  /// Whether there is no row.
  var isEmpty: Bool { rows.isEmpty }

  /// Adds a row with a text for each column.
  mutating func add(_ row: [String]) { rows.append(row) }

  /// The rows under their titles, as wide as they need to be.
  func lines(_ style: Style) -> [String] {
    let widths = columns.indices.map { index in
      rows.reduce(columns[index].title.count) { max($0, index < $1.count ? $1[index].count : 0) }
    }
    let head = line(columns.map(\.title), widths)
    return [style.bold(head)] + rows.map { line($0, widths) }
  }

  private func line(_ cells: [String], _ widths: [Int]) -> String {
    var text = ""
    for (index, cell) in cells.enumerated() where index < columns.count {
      if index > 0 { text += "  " }
      text += cell.padded(to: widths[index], columns[index].side)
    }
    while text.last == " " { text.removeLast() }
    return text
  }
}

extension String {
  /// The text with spaces around, `width` characters wide at least.
  func padded(to width: Int, _ side: Table.Side) -> String {
    let spaces = String(repeating: " ", count: max(0, width - count))
    return side == .left ? self + spaces : spaces + self
  }
}
