internal import Images
internal import Kernel
internal import Predump

/// `restore-check`'s result as JSON.
struct RestoreCheckBody: Encodable, Sendable {
  struct Round: Encodable {
    let name: String
    let index: Int?
    let kind: String?
    let pagesStored: UInt64
    let pagesZero: UInt64
    let pagesFromParent: UInt64
    let payloadBytes: UInt64
    let digestsChecked: Bool
    let sound: Bool
  }

  struct Item: Encodable {
    let kind: String
    let severity: String
    let round: String?
    let file: String
    let byteOffset: UInt64?
    let address: String?
    let message: String
  }

  struct Count: Encodable {
    let kind: String
    let count: UInt64
  }

  struct Comparison: Encodable {
    struct First: Encodable {
      let kind: String
      let address: String
      let message: String
    }

    struct Range: Encodable {
      let start: String
      let end: String
    }

    let equal: Bool
    let pagesCompared: UInt64
    let pagesDifferent: UInt64
    let vmasCompared: UInt64
    let vmasDifferent: UInt64
    let processesCompared: UInt64
    let processesDifferent: UInt64
    let first: [First]
    let unreadable: [Range]

    init(_ comparison: MemoryComparison) {
      equal = comparison.isEqual
      pagesCompared = comparison.pagesCompared
      pagesDifferent = comparison.pagesDifferent
      vmasCompared = comparison.vmasCompared
      vmasDifferent = comparison.vmasDifferent
      processesCompared = comparison.processesCompared
      processesDifferent = comparison.processesDifferent
      first = comparison.first.map {
        First(kind: $0.kind.rawValue, address: hexAddress($0.address), message: $0.message)
      }
      unreadable = comparison.unreadableRanges.map {
        Range(start: hexAddress($0.start), end: hexAddress($0.end))
      }
    }
  }

  let directory: String
  let verdict: String
  let restorable: Bool
  let exitCode: Int32
  let outcome: String?
  let soundUpTo: String?
  let contentChecked: Bool
  let rounds: [Round]
  let findings: [Item]
  let counts: [Count]
  let live: Comparison?
  let rebuild: Comparison?

  init(_ result: RestoreCheckResult) {
    let report = result.report
    directory = report.directory
    verdict = report.verdict.rawValue
    restorable = report.verdict == .restorable
    exitCode = result.status.rawValue
    outcome = report.outcome?.name
    soundUpTo = report.soundUpTo
    contentChecked = report.contentChecked
    rounds = report.rounds.map {
      Round(
        name: $0.name, index: $0.index, kind: $0.isFrozen.map { $0 ? "frozen" : "live" },
        pagesStored: $0.pagesPresent, pagesZero: $0.pagesZero,
        pagesFromParent: $0.pagesFromParent, payloadBytes: $0.payloadBytes,
        digestsChecked: $0.hasDigests, sound: $0.isSound)
    }
    findings = report.findings.map {
      Item(
        kind: $0.kind.rawValue, severity: $0.severity.rawValue, round: $0.round, file: $0.file,
        byteOffset: $0.byteOffset, address: $0.address.map(hexAddress), message: $0.message)
    }
    counts = report.counts.map { Count(kind: $0.kind.rawValue, count: $0.count) }
    live = result.comparisons.live.map { Comparison($0) }
    rebuild = result.comparisons.rebuild.map { Comparison($0) }
  }
}
