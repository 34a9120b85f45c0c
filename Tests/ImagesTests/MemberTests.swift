import Kernel
import Testing

@testable import Images

/// Rounds of several processes, whose ids may come again for somebody else.
@Suite struct MemberTests {
  private static let vma = VMARecord(
    range: PageRange(start: 0x1000, pageCount: 16), fileOffset: 0, protection: 3, mapFlags: 0x22,
    status: 0x201, adviceBits: 0, sharedObjectID: 0, kind: .anonymous, treatment: .tracked, path: ""
  )

  /// The second process of a round: its start, from which round on it is there, and whether it takes
  /// its page from the parent. Nil: there is none.
  private typealias Child = (startTicks: UInt64, since: Int, isFromParent: Bool)?

  private func member(_ pid: Int32, _ startTicks: UInt64, since: Int) -> RoundMember {
    var space = AddressSpace()
    space.vmas = [Self.vma]
    return RoundMember(
      target: TargetIdentity(pid: pid, startTicks: startTicks, bootID: "boot", command: "model"),
      parent: pid == 7 ? 0 : 7, since: since, addressSpace: space)
  }

  private func verdict(_ children: [Child]) throws -> ChainReport {
    let scratch = try Scratch()
    for (position, child) in children.enumerated() {
      let index = position + 1
      var writer = try RoundWriter(
        in: try scratch.directory(), name: ModelWriter.name(index), pid: 7,
        parentName: position > 0 ? ModelWriter.name(position) : nil, compression: .none, sync: false
      )
      try writer.append(try RoundWriterTests.chunk([0x1000]))
      var description = RoundWriterTests.describe(index, index == children.count ? .frozen : .live)
      description.includesDescendants = true
      description.members = [member(7, 99, since: 1)]
      if let child {
        try writer.begin(.process(pid: 8))
        let chunk = Chunk(compression: .none)
        if child.isFromParent {
          _ = chunk.appendParent(PageRange(start: 0x2000, pageCount: 1))
        } else {
          try ChunkTests.append(chunk, 0x2000, 1)
        }
        chunk.encode()
        try writer.append(chunk)
        description.members.append(member(8, child.startTicks, since: child.since))
      }
      _ = try writer.commit(description)
    }
    return ChainVerifier.verify(scratch.path)
  }

  @Test("processes that stay, come later, or are gone by the end make a sound chain") func sound()
    throws
  {
    #expect(try verdict([(5, 1, false), (5, 1, true)]).verdict == .restorable)
    #expect(try verdict([nil, (5, 2, false), (5, 2, true)]).verdict == .restorable)
    #expect(try verdict([(5, 1, false), nil]).verdict == .restorable)
    // Another process under the same id, or the same one after an execve.
    #expect(try verdict([(5, 1, false), (6, 2, false)]).verdict == .restorable)
    #expect(try verdict([(5, 1, false), (5, 2, false)]).verdict == .restorable)
  }

  @Test("a session's record forgets the rounds that are lost, and whom only they had")
  func rollBack() {
    var record = ModelWriter.session(rounds: 4)
    for round in 1...4 {
      var there = [member(7, 99, since: 1)]
      if round >= 2 { there.append(member(8, 100, since: 2)) }
      if round >= 3 { there.append(member(9, 101, since: 3)) }
      record.add(there, of: round)
    }
    record.rollBack(to: 2)
    #expect(record.rounds == ModelWriter.session(rounds: 2).rounds)
    #expect(record.members.map(\.target.pid) == [7, 8])
    #expect(record.members.map(\.lastRound) == [2, 2])
    // The rounds that come instead are taken in as if nothing had been.
    record.add([member(7, 99, since: 1), member(8, 100, since: 3)], of: 3)
    #expect(record.members.map(\.firstRound) == [1, 2, 3])
    #expect(record.members.map(\.lastRound) == [3, 2, 3])
  }

  @Test("pages of one process are never taken for those of another") func mixedUp() throws {
    #expect(try verdict([(5, 1, false), (6, 2, true)]).verdict == .damaged)
    #expect(try verdict([(5, 1, false), (6, 1, true)]).verdict == .damaged)
    #expect(try verdict([(5, 1, false), (5, 2, true)]).verdict == .damaged)
    #expect(try verdict([nil, (5, 1, false)]).verdict == .damaged)
  }
}
