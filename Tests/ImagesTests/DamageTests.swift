import Foundation
import Testing

@testable import Images

@Suite struct DamageTests {
  /// One random change to one file.
  enum Change: CaseIterable {
    case flipBit, flipTwoBits, replaceByte, replaceWord, swapBytes, truncate, appendZeros
    case appendNoise, cutOut, duplicate

    /// The changed bytes.
    func apply(to original: [UInt8], using generator: inout SeededGenerator) -> [UInt8] {
      var bytes = original
      func place() -> Int { Int(generator.next() % UInt64(max(bytes.count, 1))) }
      if bytes.isEmpty { return [UInt8(truncatingIfNeeded: generator.next())] }
      switch self {
      case .flipBit: bytes[place()] ^= 1 << (generator.next() % 8)
      case .flipTwoBits:
        bytes[place()] ^= 1 << (generator.next() % 8)
        bytes[place()] ^= 1 << (generator.next() % 8)
      case .replaceByte: bytes[place()] = UInt8(truncatingIfNeeded: generator.next())
      case .replaceWord:
        let start = place()
        for index in start..<min(start + 4, bytes.count) {
          bytes[index] = UInt8(truncatingIfNeeded: generator.next())
        }
      case .swapBytes: bytes.swapAt(place(), place())
      case .truncate: bytes.removeLast(bytes.count - place())
      case .appendZeros: bytes += [UInt8](repeating: 0, count: Int(generator.next() % 5000) + 1)
      case .appendNoise:
        bytes += (0...generator.next() % 40).map { _ in UInt8(truncatingIfNeeded: generator.next())
        }
      case .cutOut:
        let start = place()
        bytes.removeSubrange(start..<min(bytes.count, start + Int(generator.next() % 30) + 1))
      case .duplicate:
        let start = place()
        bytes.insert(
          contentsOf: bytes[start..<min(bytes.count, start + Int(generator.next() % 30) + 1)],
          at: start)
      }
      return bytes
    }
  }

  static let layouts: [PageCompression] = [
    .none, .standard, .lz4(pagesPerBlock: 1, acceleration: 1),
    .lz4(pagesPerBlock: 7, acceleration: 4),
  ]

  @Test("No change to any byte of any file goes unnoticed", arguments: layouts)
  func randomChanges(_ compression: PageCompression) throws {
    let scratch = try Scratch()
    var generator = SeededGenerator(seed: SeededGenerator.seed &+ 300)
    _ = try RoundTripTests.writeChain(
      in: scratch, rounds: 3, compression: compression, seed: generator.next(), runs: 2)
    let files = scratch.files()
    #expect(files.count > 20)
    for step in 0..<250 {
      let file = files[Int(generator.next() % UInt64(files.count))]
      let change = Change.allCases[Int(generator.next() % UInt64(Change.allCases.count))]
      let original = try scratch.bytes(file)
      let changed = change.apply(to: original, using: &generator)
      if changed == original { continue }
      try scratch.write(file, changed)
      let report = ChainVerifier.verify(scratch.path)
      #expect(report.verdict == .damaged, "step \(step): \(change) of \(file) went unnoticed")
      #expect(!report.findings.isEmpty && !report.counts.isEmpty)
      try scratch.write(file, original)
    }
    #expect(ChainVerifier.verify(scratch.path).verdict == .restorable)
  }

  @Test(
    "Without a record of ours, no change makes the verifier crash, and composition tells or stays")
  func randomChangesWithoutRecord() throws {
    let scratch = try Scratch()
    var generator = SeededGenerator(seed: SeededGenerator.seed &+ 400)
    _ = try RoundTripTests.writeChain(
      in: scratch, rounds: 2, compression: .lz4(pagesPerBlock: 4, acceleration: 1),
      seed: generator.next(), runs: 2)
    for round in 1...2 { try scratch.remove("\(ModelWriter.name(round))/memdump-7.img") }
    try scratch.remove("memdump-session.img")
    let good = ChainVerifier.verify(scratch.path)
    #expect(good.verdict == .restorable, "\(good.findings)")
    #expect(!good.contentChecked)
    let files = scratch.files()
    for _ in 0..<400 {
      let file = files[Int(generator.next() % UInt64(files.count))]
      let change = Change.allCases[Int(generator.next() % UInt64(Change.allCases.count))]
      let original = try scratch.bytes(file)
      try scratch.write(file, change.apply(to: original, using: &generator))
      let report = ChainVerifier.verify(scratch.path)
      let chain = try ImageChain(scratch.path)
      var isComposed = false
      do {
        var image = try ComposedImage(chain, stream: .process(pid: 7))
        try image.forEachRun { _, _ in }
        isComposed = true
      } catch is ImageError {}
      // What does not compose is damaged; the reverse is not so.
      if !isComposed { #expect(report.verdict == .damaged, "\(change) of \(file)") }
      try scratch.write(file, original)
    }
  }

  @Test("A missing file is noticed, whichever it is", arguments: layouts)
  func missingFiles(_ compression: PageCompression) throws {
    let scratch = try Scratch()
    _ = try RoundTripTests.writeChain(
      in: scratch, rounds: 2, compression: compression, seed: SeededGenerator.seed, runs: 2)
    for file in scratch.files() where file != "memdump-session.img" {
      let original = try scratch.bytes(file)
      try scratch.remove(file)
      #expect(ChainVerifier.verify(scratch.path).verdict == .damaged, "\(file)")
      try scratch.write(file, original)
    }
    try scratch.remove("round-002/parent")
    #expect(ChainVerifier.verify(scratch.path).verdict == .damaged)
  }

  @Test("A lost newest round is noticed through the session's record")
  func lostRound() throws {
    let scratch = try Scratch()
    _ = try RoundTripTests.writeChain(
      in: scratch, rounds: 3, compression: .standard, seed: SeededGenerator.seed, runs: 2)
    try scratch.remove("round-003")
    for outcome in [SessionOutcome.complete, .preDumpOnly, .running] {
      try ModelWriter.session(rounds: 3, outcome: outcome).write(
        in: try scratch.directory(), sync: false)
      let report = ChainVerifier.verify(scratch.path)
      #expect(report.verdict == .damaged)
      #expect(report.counts.contains { $0.kind == .session })
      // The memory of the rounds that are left is sound.
      #expect(report.soundUpTo == "round-002")
    }
  }

  @Test("A dump that died is sound up to its last committed round, and its leftover is reported")
  func leftovers() throws {
    let scratch = try Scratch()
    _ = try RoundTripTests.writeChain(
      in: scratch, rounds: 3, compression: .standard, seed: SeededGenerator.seed, runs: 2)
    try scratch.remove("round-003")
    try scratch.makeDirectory("round-003.partial")
    try ModelWriter.session(rounds: 1, outcome: .running).write(
      in: try scratch.directory(), sync: false)
    let report = ChainVerifier.verify(scratch.path)
    #expect(report.verdict == .consistentNotRestorable, "\(report.findings)")
    #expect(report.soundUpTo == "round-002")
    #expect(report.findings.map(\.kind) == [.superfluousFile])
    #expect(report.findings.first?.severity == .notice)
  }

  @Test("A dump of CRIU's may lie on top of our rounds, but not between them")
  func foreignTop() throws {
    let scratch = try Scratch()
    _ = try RoundTripTests.writeChain(
      in: scratch, rounds: 3, compression: .standard, seed: SeededGenerator.seed, runs: 2)
    try scratch.remove("round-003/memdump-7.img")
    let top = ChainVerifier.verify(scratch.path + "/round-003")
    #expect(top.verdict == .restorable, "\(top.findings)")
    #expect(!top.contentChecked && top.rounds.map(\.hasDigests) == [true, true, false])
    #expect(ChainVerifier.verify(scratch.path).verdict == .damaged)
    try scratch.remove("round-001/memdump-7.img")
    #expect(ChainVerifier.verify(scratch.path + "/round-003").verdict == .damaged)
  }

  @Test("A parent from another dump is noticed")
  func foreignParent() throws {
    let scratch = try Scratch()
    let other = try Scratch()
    for (place, seed) in [(scratch, SeededGenerator.seed), (other, SeededGenerator.seed &+ 1)] {
      _ = try RoundTripTests.writeChain(
        in: place, rounds: 2, compression: .standard, seed: seed, runs: 2)
    }
    try scratch.remove("round-001")
    try FileManager.default.copyItem(
      atPath: other.path + "/round-001", toPath: scratch.path + "/round-001")
    let report = ChainVerifier.verify(scratch.path)
    #expect(report.verdict == .damaged)
    #expect(report.counts.contains { $0.kind == .parentRecord })
  }

  @Test("Damage is said to be where it is")
  func location() throws {
    let scratch = try Scratch()
    _ = try RoundTripTests.writeChain(
      in: scratch, rounds: 2, compression: .none, seed: SeededGenerator.seed, runs: 2)
    var bytes = try scratch.bytes("round-001/pages-1.img")
    let place = bytes.count / 2
    bytes[place] ^= 1
    try scratch.write("round-001/pages-1.img", bytes)
    let report = ChainVerifier.verify(scratch.path)
    let finding = try #require(report.findings.first { $0.kind == .digest && $0.address != nil })
    #expect(finding.round == "round-001")
    #expect(finding.file.hasSuffix("round-001/pages-1.img"))
    let offset = Int(try #require(finding.byteOffset))
    #expect(offset <= place && place < offset + 64 * 4096)
    #expect(report.soundUpTo == nil)
    #expect(report.rounds.map(\.isSound) == [false, true])
  }
}
