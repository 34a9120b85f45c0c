internal import Images
internal import Kernel
internal import Predump

/// Everything that `restore-check` found out.
struct RestoreCheckResult: Sendable {
  let report: ChainReport
  let comparisons: Comparisons
  let status: ExitStatus
  /// Whether a comparison was asked for.
  let wasAskedToCompare: Bool

  /// The outcome in one sentence.
  var sentence: String {
    let isSkipped = wasAskedToCompare && report.verdict != .restorable
    return outcome + (isSkipped ? "; not compared with memory" : "")
  }

  private var outcome: String {
    switch report.verdict {
    case .restorable where status == .success: "restorable"
    case .restorable where comparisons.areEqual: "sound, but the comparison could not be made"
    case .restorable: "not what the process holds"
    case .consistentNotRestorable where report.rounds.last?.isFrozen ?? false:
      "sound, but the dump did not come to its end after the final round"
    case .consistentNotRestorable: "sound, but not restorable yet: there is no final round"
    case .damaged:
      report.soundUpTo.map { "damaged; sound up to \($0)" } ?? "damaged; no round is sound"
    case .noImages: "no images"
    }
  }

  /// Why the command does not end with success.
  var failure: CommandFailure {
    var message = "\(report.directory): \(sentence)"
    if report.verdict == .noImages, let first = report.findings.first {
      message = "no images: \(first.text)"
    } else if let first = report.findings.first(where: { $0.severity == .damage }) {
      message += "; \(first.text)"
    } else if let first = (comparisons.live?.first ?? []).first
      ?? (comparisons.rebuild?.first ?? []).first
    {
      message += "; \(hexAddress(first.address)): \(first.message)"
    }
    return CommandFailure(status, kind: kind, message)
  }

  private var kind: String {
    report.verdict == .restorable ? "different" : report.verdict.rawValue
  }
}

extension Finding {
  /// The finding in a line: file, place, what it is.
  var text: String {
    var text = file
    if let byteOffset { text += " at byte \(byteOffset)" }
    if let address { text += " (address \(hexAddress(address)))" }
    return "\(text): \(message)"
  }
}
