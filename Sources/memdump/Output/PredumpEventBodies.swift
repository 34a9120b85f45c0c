internal import Images
internal import Predump

/// `attached`: the target is tracked from now on.
struct AttachedBody: Encodable, Sendable {
  let pid: Int32
  let command: String
  let startTicks: UInt64
  let bootId: String
  let processes: Int
  let stoppedNs: UInt64
  let residentBytes: UInt64
  let vmas: Int

  init(_ report: AttachReport) {
    pid = report.target.pid
    command = report.target.command
    startTicks = report.target.startTicks
    bootId = report.target.bootID
    processes = report.processCount
    stoppedNs = report.stoppedNanoseconds
    residentBytes = report.residentBytes
    vmas = report.vmaCount
  }
}

/// `member`: a descendant of the target came or went.
struct MemberBody: Encodable, Sendable {
  let pid: Int32
  let parent: Int32
  let command: String
  let startTicks: UInt64
  let round: Int
  let change: String

  init(_ report: MemberReport) {
    pid = report.target.pid
    parent = report.parent
    command = report.target.command
    startTicks = report.target.startTicks
    round = report.round
    change = report.change.rawValue
  }
}

/// `progress`: a live round goes on.
struct ProgressBody: Encodable, Sendable {
  let round: Int
  let pagesDone: UInt64
  let pagesExpected: UInt64

  init(_ progress: RoundProgress) {
    round = progress.round
    pagesDone = progress.pagesDone
    pagesExpected = progress.pagesExpected
  }
}

/// `round`: a round is on disk.
struct RoundBody: Encodable, Sendable {
  let round: Int
  let name: String
  let kind: String
  let pagesStored: UInt64
  let pagesZero: UInt64
  let pagesFromParent: UInt64
  let pagesUnchanged: UInt64
  let pagesWaiting: UInt64
  let bytesIn: UInt64
  let bytesOut: UInt64
  let ratio: Double?
  let bytesPerSecond: Double?
  let wallNs: UInt64
  let copyNs: UInt64
  let scanStopNs: UInt64?
  let pagesPending: UInt64
  let dirtyPagesPerSecond: Double
  let estimatedFreezeNs: UInt64?
  let verdict: String?
  let reason: String?

  init(_ report: RoundReport) {
    round = report.index
    name = report.name
    kind = report.kind.name
    pagesStored = report.totals.pagesStored
    pagesZero = report.totals.pagesZero
    pagesFromParent = report.totals.pagesFromParent
    pagesUnchanged = report.unchangedPages
    pagesWaiting = report.waitingPages
    bytesIn = report.bytesIn
    bytesOut = report.totals.payloadBytes
    ratio = Units.ratio(bytesIn, bytesOut)
    bytesPerSecond = Units.perSecond(bytesIn, in: report.wallNanoseconds)
    wallNs = report.wallNanoseconds
    copyNs = report.copyNanoseconds
    scanStopNs = report.scanStopNanoseconds > 0 ? report.scanStopNanoseconds : nil
    pagesPending = report.pendingPages
    dirtyPagesPerSecond = report.dirtyPagesPerSecond
    estimatedFreezeNs = report.kind == .live ? report.estimatedFreezeNanoseconds : nil
    verdict = report.verdict?.name
    reason = report.verdict?.reason
  }
}

/// `prediction`: the freeze begins in a moment.
struct PredictionBody: Encodable, Sendable {
  let freezeNs: UInt64
  let pages: UInt64
  let verdict: String
  let reason: String?

  init(_ prediction: FreezePrediction) {
    freezeNs = prediction.nanoseconds
    pages = prediction.pages
    verdict = prediction.verdict.name
    reason = prediction.verdict.reason
  }
}

/// `thawed`: the freeze is over. Also a part of `summary`.
struct ThawedBody: Encodable, Sendable {
  let frozenNs: UInt64
  let freezingNs: UInt64
  let copyNs: UInt64
  let predictedNs: UInt64
  let pages: UInt64
  let pagesCompared: UInt64
  let pagesFoundByVerification: UInt64?
  let threads: Int
  let requestsInFlight: UInt32
  let processes: Int
  let commandNs: UInt64?

  init(_ report: FreezeReport) {
    frozenNs = report.frozenNanoseconds
    freezingNs = report.freezingNanoseconds
    copyNs = report.copyNanoseconds
    predictedNs = report.predictedNanoseconds
    pages = report.pages
    pagesCompared = report.pagesCompared
    pagesFoundByVerification = report.pagesFoundByVerification
    threads = report.threadCount
    requestsInFlight = report.requestsInFlight
    processes = report.processCount
    commandNs = report.commandNanoseconds
  }
}

/// `summary`: how the dump ended.
struct SummaryBody: Encodable, Sendable {
  let imagesDir: String
  let outcome: String
  let rounds: Int
  let pagesStored: UInt64
  let pagesZero: UInt64
  let bytesIn: UInt64
  let bytesOut: UInt64
  let bytesWrittenAgain: UInt64
  let ratio: Double?
  let wallNs: UInt64
  let peakResidentBytes: UInt64
  let freeze: ThawedBody?
  let targetStoppedNs: UInt64
  let targetFirstWrites: UInt64
  let firstWriteNs: UInt64?
  let targetFirstWritesNs: UInt64?
  let targetMinorFaults: UInt64?
  let hugeBytesBefore: UInt64?
  let hugeBytesAfter: UInt64?
  let hugeBytesRestored: UInt64?

  init(_ summary: PredumpSummary, directory: String) {
    imagesDir = directory
    outcome = summary.outcome.name
    rounds = summary.rounds.count
    pagesStored = summary.rounds.reduce(0) { $0 + $1.totals.pagesStored }
    pagesZero = summary.rounds.reduce(0) { $0 + $1.totals.pagesZero }
    bytesIn = summary.rounds.reduce(0) { $0 + $1.bytesIn }
    bytesOut = summary.rounds.reduce(0) { $0 + $1.totals.payloadBytes }
    bytesWrittenAgain = summary.bytesWrittenAgain
    ratio = Units.ratio(bytesIn, bytesOut)
    wallNs = summary.wallNanoseconds
    peakResidentBytes = summary.peakResidentBytes
    freeze = summary.freeze.map { ThawedBody($0) }
    targetStoppedNs = summary.slowdown.stoppedNanoseconds
    targetFirstWrites = summary.slowdown.firstWrites
    firstWriteNs = summary.slowdown.nanosecondsPerFirstWrite
    targetFirstWritesNs = summary.slowdown.firstWriteNanoseconds
    targetMinorFaults = summary.targetMinorFaults
    hugeBytesBefore = summary.hugePages?.bytesBefore
    hugeBytesAfter = summary.hugePages?.bytesAfter
    hugeBytesRestored = summary.hugePages?.restoredBytes
  }
}
