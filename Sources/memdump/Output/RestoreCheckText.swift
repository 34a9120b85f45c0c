internal import Images
internal import Kernel
internal import Predump

/// `restore-check`'s result for people.
struct RestoreCheckText {
  private let result: RestoreCheckResult
  private let style: Style

  init(_ result: RestoreCheckResult, _ style: Style) {
    self.result = result
    self.style = style
  }

  /// The table of rounds, what was found, and the verdict.
  var lines: [String] {
    var lines: [String] = []
    if !result.report.rounds.isEmpty { lines += rounds }
    lines += findings
    if let live = result.comparisons.live { lines += comparison(live, "the live process") }
    if let rebuild = result.comparisons.rebuild {
      lines += comparison(rebuild, "the rebuilt address space")
    }
    let verdict = "\(result.report.directory): \(result.sentence)"
    switch result.status {
    case .success: lines.append(style.green(verdict))
    case .notRestorable: lines.append(style.yellow(verdict))
    default: lines.append(style.red(verdict))
    }
    return lines
  }

  private var rounds: [String] {
    var table = Table([
      ("round", .left), ("kind", .left), ("stored", .right), ("zero", .right),
      ("from parent", .right), ("bytes", .right), ("digests", .left), ("state", .left),
    ])
    for round in result.report.rounds {
      table.add([
        round.name, round.isFrozen.map { $0 ? "frozen" : "live" } ?? "-",
        Units.count(round.pagesPresent), Units.count(round.pagesZero),
        Units.count(round.pagesFromParent), Units.bytes(round.payloadBytes),
        round.hasDigests ? "checked" : "none", round.isSound ? "sound" : "damaged",
      ])
    }
    return table.lines(style)
  }

  private var findings: [String] {
    var lines: [String] = []
    for severity in [Finding.Severity.damage, .notice] {
      for count in result.report.counts {
        guard
          let first = result.report.findings.first(where: {
            $0.kind == count.kind && $0.severity == severity
          })
        else { continue }
        let word = severity == .damage ? style.red("damage") : style.yellow("notice")
        let times = count.count > 1 ? " (first of \(Units.count(count.count)))" : ""
        lines.append("\(word) \(count.kind.rawValue)\(times): \(first.text)")
      }
    }
    return lines
  }

  private func comparison(_ comparison: MemoryComparison, _ with: String) -> [String] {
    let isTree = comparison.processesCompared > 1 || comparison.processesDifferent > 0
    var lines = [
      "Compared with \(with): \(Units.count(comparison.pagesCompared, "page")), "
        + Units.count(comparison.vmasCompared, "VMA")
        + (isTree ? " of \(Units.count(comparison.processesCompared, "process"))" : "")
        + "; different: \(Units.count(comparison.pagesDifferent, "page")), "
        + Units.count(comparison.vmasDifferent, "VMA")
        + (isTree ? ", \(Units.count(comparison.processesDifferent, "process"))" : "")
    ]
    for first in comparison.first {
      lines.append(
        "\(style.red("different")) \(first.kind.rawValue): first at "
          + "\(hexAddress(first.address)): \(first.message)")
    }
    for range in comparison.unreadableRanges {
      lines.append(
        "\(style.yellow("notice")) nobody but the process may read "
          + "\(hexAddress(range.start))-\(hexAddress(range.end)): not compared")
    }
    return lines
  }
}
