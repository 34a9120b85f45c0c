import Foundation
import Kernel
import Testing

@testable import Images

@Suite struct RoundWriterTests {
  static func describe(_ index: Int, _ kind: RoundKind = .frozen) -> RoundDescription {
    RoundDescription(
      index: index, kind: kind, target: ModelWriter.target, addressSpace: AddressSpace(),
      statistics: RoundStatistics(), uptimeMicroseconds: 1, startedAt: 2)
  }

  static func chunk(_ starts: [UInt64], compression: PageCompression = .none) throws -> Chunk {
    let chunk = Chunk(compression: compression)
    for start in starts { try ChunkTests.append(chunk, start, 1) }
    chunk.encode()
    return chunk
  }

  @Test("A round that is not committed leaves nothing")
  func abandoned() throws {
    let scratch = try Scratch()
    do {
      var writer = try RoundWriter(
        in: try scratch.directory(), name: "round-001", pid: 7, parentName: nil, compression: .none,
        sync: false)
      try writer.append(try Self.chunk([0x1000]))
      try writer.beginSharedObject(id: 3)
      #expect(scratch.exists("round-001.partial/pages-2.img"))
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == [])
  }

  @Test("A committed round is there under its name, for its owner only", arguments: [false, true])
  func committed(sync: Bool) throws {
    let scratch = try Scratch()
    var writer = try RoundWriter(
      in: try scratch.directory(), name: "round-001", pid: 7, parentName: nil, compression: .none,
      sync: sync)
    try writer.append(try Self.chunk([0x1000, 0x3000]))
    #expect(writer.totals.pagesStored == 2)
    let totals = try writer.commit(Self.describe(1))
    #expect(totals.pagesStored == 2 && totals.payloadBytes == 8192)
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == ["round-001"])
    let attributes = try FileManager.default.attributesOfItem(atPath: scratch.path + "/round-001")
    #expect(attributes[.posixPermissions] as? Int == 0o700)
  }

  @Test("Runs that do not ascend are refused, also across chunks")
  func order() throws {
    let scratch = try Scratch()
    let directory = try scratch.directory()
    var writer = try RoundWriter(
      in: directory, name: "round-001", pid: 7, parentName: nil, compression: .none, sync: false)
    try writer.append(try Self.chunk([0x1000, 0x2000]))
    for starts: [UInt64] in [[0x2000], [0x5000, 0x4000], [0x6001]] {
      do {
        try writer.append(try Self.chunk(starts))
        Issue.record("\(starts) was taken")
      } catch let error as ImageError {
        #expect(error.kind == .misuse)
      }
    }
  }

  @Test("Neither a round nor its leftover is ever replaced")
  func noReplacement() throws {
    let scratch = try Scratch()
    let directory = try scratch.directory()
    let writer = try RoundWriter(
      in: directory, name: "round-001", pid: 7, parentName: nil, compression: .none, sync: false)
    #expect(throws: ImageError.self) {
      _ = try RoundWriter(
        in: try scratch.directory(), name: "round-001", pid: 7, parentName: nil, compression: .none,
        sync: false)
    }
    try scratch.makeDirectory("round-001")
    do {
      _ = try writer.commit(Self.describe(1))
      Issue.record("the round was replaced")
    } catch {
      #expect(error.kind == .inputOutput)
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == ["round-001"])
  }

  @Test("A round's parent must be there, and have a record")
  func parents() throws {
    let scratch = try Scratch()
    try scratch.makeDirectory("round-001")
    for parent in ["round-000", "round-001"] {
      #expect(throws: ImageError.self) {
        _ = try RoundWriter(
          in: try scratch.directory(), name: "round-002", pid: 7, parentName: parent,
          compression: .none, sync: false)
      }
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == ["round-001"])
  }

  @Test("A plain round on compressed ones says so in its inventory")
  func mixedChain() throws {
    let scratch = try Scratch()
    let directory = try scratch.directory()
    for (index, compression) in [PageCompression.standard, .none, .none].enumerated() {
      let name = ModelWriter.name(index + 1)
      var writer = try RoundWriter(
        in: directory, name: name, pid: 7, parentName: index == 0 ? nil : ModelWriter.name(index),
        compression: compression, sync: false)
      var description = Self.describe(index + 1)
      description.members[0].addressSpace.vmas = [
        VMARecord(
          range: PageRange(start: 0x1000, pageCount: 1), fileOffset: 0, protection: 3,
          mapFlags: 0x22, status: 0x201, adviceBits: 0, sharedObjectID: 0, kind: .anonymous,
          treatment: .tracked, path: "/a b")
      ]
      try writer.append(try Self.chunk([0x1000], compression: compression))
      _ = try writer.commit(description)
      let round = try Directory.open("\(scratch.path)/\(name)", followSymlink: false)
      #expect(try Inventory.read(in: round).version == 3)
      #expect(try Inventory.read(in: round).compress == (index == 0 ? 1 : 0))
    }
    let report = ChainVerifier.verify(scratch.path)
    #expect(report.verdict == .restorable, "\(report.findings)")
    #expect(report.findings.map(\.kind) == [.session])
  }

  @Test("What the engine says of a round is what a reader gets")
  func description() throws {
    let scratch = try Scratch()
    var description = Self.describe(1, .live)
    description.statistics.frozenMicroseconds = 12
    description.statistics.pagesScanned = 1 << 40
    var vma = VMARecord(
      range: PageRange(start: 0x1000, pageCount: 5), fileOffset: 4096, protection: 5, mapFlags: 2,
      status: 0x41, adviceBits: 1 << 14, sharedObjectID: 0, kind: .privateFile,
      treatment: .privatePagesEachRound, path: "/lib/\u{fc} (deleted)")
    vma.pagesStored = 3
    description.members[0].addressSpace.vmas = [vma]
    let writer = try RoundWriter(
      in: try scratch.directory(), name: "round-001", pid: 7, parentName: nil,
      compression: .lz4(pagesPerBlock: 5, acceleration: 9), sync: false)
    _ = try writer.commit(description)
    let summary = try ChainSummary(scratch.path)
    let record = try #require(summary.rounds.first?.record)
    #expect(record.vmas == [vma])
    #expect(record.kind == .live && record.index == 1 && record.target == ModelWriter.target)
    #expect(record.statistics == description.statistics)
    #expect(record.compression == .lz4(pagesPerBlock: 5, acceleration: 9))
    #expect(record.uptimeMicroseconds == 1 && record.startedAt == 2)
  }

  @Test("Memory that could not be read is no damage, but is reported")
  func unreadable() throws {
    let scratch = try Scratch()
    var description = Self.describe(1)
    description.members[0].addressSpace.vmas = [
      VMARecord(
        range: PageRange(start: 0x5000, pageCount: 2), fileOffset: 0, protection: 3, mapFlags: 2,
        status: 0x1, adviceBits: 0, sharedObjectID: 0, kind: .secretMemory, treatment: .unreadable,
        path: "/secretmem (deleted)")
    ]
    let writer = try RoundWriter(
      in: try scratch.directory(), name: "round-001", pid: 7, parentName: nil, compression: .none,
      sync: false)
    _ = try writer.commit(description)
    try ModelWriter.session(rounds: 1).write(in: try scratch.directory(), sync: false)
    let report = ChainVerifier.verify(scratch.path)
    #expect(report.verdict == .restorable)
    #expect(report.findings.map(\.kind) == [.unreadableMemory])
    #expect(report.findings.first?.address == 0x5000)
  }

  @Test("A session's record is replaced whole")
  func sessionRecord() throws {
    let scratch = try Scratch()
    let directory = try scratch.directory()
    for (rounds, outcome) in [(0, SessionOutcome.running), (3, .running), (3, .notConverged)] {
      let record = ModelWriter.session(rounds: rounds, outcome: outcome)
      try record.write(in: directory, sync: true)
      #expect(try SessionRecord.read(from: directory) == record)
    }
    #expect(scratch.files() == ["memdump-session.img"])
  }
}
