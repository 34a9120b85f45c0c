import CCRIUImages
import Kernel
import Testing

@testable import Images

@Suite struct RecordTests {
  @Test("A record that contradicts the pages is noticed, though its seal is good")
  func falseRecords() throws {
    let scratch = try Scratch()
    _ = try RoundTripTests.writeChain(
      in: scratch, rounds: 1, compression: .none, seed: SeededGenerator.seed, runs: 2)
    let round = try Directory.open(scratch.path + "/round-001", followSymlink: false)
    let good = try RoundRecordReader.read(pid: 7, in: round)
    try rewrite(good, in: round, totals: good.totals)
    // Without digests the record is not that of these pages.
    #expect(ChainVerifier.verify(scratch.path).counts.map(\.kind) == [.record])
  }

  @Test("Totals that contradict the pages are noticed")
  func falseTotals() throws {
    for change: WritableKeyPath<RoundTotals, UInt64> in [
      \.pagesStored, \.pagesZero, \.pagesFromParent, \.payloadBytes,
    ] {
      let scratch = try Scratch()
      let writer = try RoundWriter(
        in: try scratch.directory(), name: "round-001", pid: 7, parentName: nil, compression: .none,
        sync: false)
      _ = try writer.commit(RoundWriterTests.describe(1))
      try ModelWriter.session(rounds: 1).write(in: try scratch.directory(), sync: false)
      let round = try Directory.open(scratch.path + "/round-001", followSymlink: false)
      let record = try RoundRecordReader.read(pid: 7, in: round)
      try rewrite(record, in: round, totals: record.totals)
      #expect(ChainVerifier.verify(scratch.path).verdict == .restorable)
      var totals = record.totals
      totals[keyPath: change] += 1
      try rewrite(record, in: round, totals: totals)
      #expect(ChainVerifier.verify(scratch.path).counts.map(\.kind) == [.record])
    }
  }

  /// Writes a record without digests in place of another.
  private func rewrite(
    _ record: RoundRecord, in directory: borrowing Directory, totals: RoundTotals
  ) throws {
    try directory.removeFile("memdump-7.img")
    var writer = try RoundRecordWriter(
      in: directory, pid: 7, compression: record.compression, parent: nil)
    var description = RoundWriterTests.describe(record.index)
    description.members[0].addressSpace.vmas = record.vmas
    try writer.append(description)
    for file in record.files { try writer.append(file) }
    try writer.finish(totals, sync: false)
  }

  @Test("A message that would unpack to far more than its length is refused")
  func expansion() {
    let arena = UnpackArena()
    // Ten thousand two-byte fields that nobody knows: protobuf-c would keep each of them.
    let small = Wire.entry(0, 1, flags: 4)
    let huge = small + (0..<10_000).flatMap { _ in Wire.field(15, 1) }
    #expect(huge.withUnsafeBytes { arena.unpack(Criu__PagemapEntry.self, $0) } == nil)
    #expect(small.withUnsafeBytes { arena.unpack(Criu__PagemapEntry.self, $0) } != nil)
  }
}
