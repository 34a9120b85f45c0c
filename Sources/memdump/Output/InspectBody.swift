internal import Images
internal import Kernel

/// `inspect`: a chain's contents as JSON.
struct InspectBody: Encodable, Sendable {
  struct Session: Encodable {
    let tool: String
    let pid: Int32
    let command: String
    let startTicks: UInt64
    let bootId: String
    let startedAt: UInt64
    let updatedAt: UInt64
    let outcome: String
    let rounds: [String]
    let members: [Member]

    struct Member: Encodable {
      let pid: Int32
      let parent: Int32
      let command: String
      let startTicks: UInt64
      let firstRound: Int
      let lastRound: Int

      init(_ member: SessionMember) {
        pid = member.target.pid
        parent = member.parent
        command = member.target.command
        startTicks = member.target.startTicks
        firstRound = member.firstRound
        lastRound = member.lastRound
      }
    }

    init(_ record: SessionRecord) {
      tool = record.tool
      pid = record.target.pid
      command = record.target.command
      startTicks = record.target.startTicks
      bootId = record.target.bootID
      startedAt = record.startedAt
      updatedAt = record.updatedAt
      outcome = record.outcome.name
      rounds = record.rounds
      members = record.members.map { Member($0) }
    }
  }

  let directory: String
  let session: Session?
  let rounds: [InspectRoundBody]
  let problems: [String]

  init(_ contents: borrowing ChainContents, directory: String) {
    self.directory = directory
    session = contents.session.map { Session($0) }
    rounds = contents.rounds.map { InspectRoundBody($0) }
    problems = contents.problems.map(\.description)
  }
}

/// A round in `inspect`.
struct InspectRoundBody: Encodable, Sendable {
  struct Stream: Encodable {
    let pagemap: String
    let pages: String
    let entries: UInt64
    let pagesStored: UInt64
    let pagesZero: UInt64
    let pagesFromParent: UInt64
    let payloadBytes: UInt64
  }

  struct VMA: Encodable {
    let start: String
    let end: String
    let kind: String?
    let treatment: String?
    let protection: String?
    let mapFlags: UInt32
    let status: UInt32
    let fileOffset: UInt64?
    let sharedObject: String?
    let path: String?
    let pagesStored: UInt64
    let pagesFromParent: UInt64
  }

  /// A descendant that was dumped with the target.
  struct Member: Encodable {
    let pid: Int32
    let parent: Int32
    let command: String
    let since: Int
    let gone: Bool
    let vmas: [VMA]

    init(_ member: RoundRecord.Member) {
      pid = member.target.pid
      parent = member.parent
      command = member.target.command
      since = member.since
      gone = member.isGone
      vmas = member.vmas.map { VMA($0) }
    }
  }

  let name: String
  let index: Int?
  let kind: String?
  let format: String
  let parent: String?
  let imageVersion: UInt32?
  let pagesStored: UInt64
  let pagesZero: UInt64
  let pagesFromParent: UInt64
  let payloadBytes: UInt64
  let ratio: Double?
  let startedAt: UInt64?
  let wallUs: UInt64?
  let frozenUs: UInt64?
  let freezingUs: UInt64?
  let scanUs: UInt64?
  let copyUs: UInt64?
  let streams: [Stream]
  let vmas: [VMA]
  let members: [Member]

  init(_ round: RoundContents) {
    let record = round.record
    let totals = RoundTotals(round)
    name = round.name
    index = record?.index
    kind = record?.kind.name
    format = round.format
    parent = record?.parentName
    imageVersion = round.imageVersion
    pagesStored = totals.pagesStored
    pagesZero = totals.pagesZero
    pagesFromParent = totals.pagesFromParent
    payloadBytes = totals.payloadBytes
    ratio = Units.ratio(totals.pagesStored &* pageBytes, totals.payloadBytes)
    startedAt = record?.startedAt
    wallUs = record?.statistics.wallMicroseconds
    frozenUs = record?.statistics.frozenMicroseconds
    freezingUs = record?.statistics.freezingMicroseconds
    scanUs = record?.statistics.scanMicroseconds
    copyUs = record?.statistics.copyMicroseconds
    streams = round.streams.map {
      Stream(
        pagemap: $0.stream.pagemapName, pages: $0.pagesName, entries: $0.entryCount,
        pagesStored: $0.pagesStored, pagesZero: $0.pagesZero,
        pagesFromParent: $0.pagesFromParent, payloadBytes: $0.payloadBytes)
    }
    members = (record?.members ?? []).dropFirst().map { Member($0) }
    vmas = (record?.vmas ?? []).map { VMA($0) } + round.areas.map { VMA($0) }
  }
}

extension InspectRoundBody.VMA {
  fileprivate init(_ vma: VMARecord) {
    self.init(
      start: hexAddress(vma.range.start), end: hexAddress(vma.range.end), kind: vma.kind.name,
      treatment: vma.treatment.name, protection: vma.protectionText, mapFlags: vma.mapFlags,
      status: vma.status, fileOffset: vma.fileOffset,
      sharedObject: vma.sharedObjectID == 0 ? nil : hexAddress(vma.sharedObjectID),
      path: vma.path.isEmpty ? nil : vma.path, pagesStored: vma.pagesStored,
      pagesFromParent: vma.pagesFromParent)
  }

  fileprivate init(_ area: RoundContents.Area) {
    self.init(
      start: hexAddress(area.range.start), end: hexAddress(area.range.end), kind: nil,
      treatment: nil, protection: nil, mapFlags: area.mapFlags, status: area.status,
      fileOffset: nil,
      sharedObject: area.sharedObjectID == 0 ? nil : hexAddress(area.sharedObjectID), path: nil,
      pagesStored: area.pagesStored, pagesFromParent: area.pagesFromParent)
  }
}

/// `entry`: an entry of a pagemap, in the words of CRIU's tools.
struct EntryBody: Encodable, Sendable {
  let round: String
  let pagemap: String
  let vaddr: String
  let nrPages: UInt64
  let flags: String
  let blockSizes: [UInt32]?
  let pagesPerBlock: Int?

  init(_ entry: PagemapEntry, round: String, file: String) {
    self.round = round
    pagemap = file
    vaddr = hexAddress(entry.range.start)
    nrPages = entry.range.pageCount
    flags = entry.flags.criuName
    blockSizes = entry.hasBlocks ? entry.blockSizes : nil
    pagesPerBlock = entry.hasBlocks ? entry.pagesPerBlock : nil
  }
}
