import Kernel
import Testing

@testable import Images

@Suite struct RoundTripTests {
  static let layouts: [PageCompression] =
    [.none] + [1, 3, 16, 64, 256, 1024].map { .lz4(pagesPerBlock: $0, acceleration: 1) }

  /// Writes `rounds` rounds of a random process and returns what the last one holds.
  static func writeChain(
    in scratch: Scratch, rounds: Int, compression: PageCompression, seed: UInt64, runs: Int = 6
  ) throws -> (memory: ModelMemory, object: ModelMemory) {
    var generator = SeededGenerator(seed: seed)
    var memory = ModelMemory(using: &generator, runs: runs)
    var object = ModelMemory(using: &generator, runs: 2)
    var writer = ModelWriter(compression: compression, generator: generator)
    let directory = try scratch.directory()
    for index in 1...rounds {
      if index > 1 {
        memory.step(using: &generator)
        object.step(using: &generator)
      }
      _ = try writer.write(
        memory, objects: [9: object], index: index, kind: index == rounds ? .frozen : .live,
        in: directory)
    }
    try ModelWriter.session(rounds: rounds).write(in: directory, sync: false)
    return (memory, object)
  }

  @Test("A chain composes to the memory that was written", arguments: layouts)
  func composition(_ compression: PageCompression) throws {
    for step in 0..<4 {
      let scratch = try Scratch()
      let seed = SeededGenerator.seed &+ UInt64(step)
      let (memory, object) = try Self.writeChain(
        in: scratch, rounds: step + 1, compression: compression, seed: seed)
      let chain = try ImageChain(scratch.path)
      #expect(chain.linkProblem == nil)
      try Self.expect(chain, .process(pid: 7), holds: memory)
      try Self.expect(chain, .sharedObject(id: 9), holds: object)
    }
  }

  static func expect(
    _ chain: borrowing ImageChain, _ stream: ImageStream, holds memory: ModelMemory
  ) throws {
    var image = try ComposedImage(chain, stream: stream)
    var found: Set<UInt64> = []
    var wrong = 0
    var last: UInt64 = 0
    try image.forEachRun { range, bytes in
      #expect(range.start >= last && bytes.count <= ComposedImage.batchBytes)
      #expect(Int(range.byteCount) == bytes.count)
      last = range.end
      for index in 0..<Int(range.pageCount) {
        let page = range.start / pageBytes + UInt64(index)
        found.insert(page)
        let piece = UnsafeRawBufferPointer(rebasing: bytes[(index * 4096)..<((index + 1) * 4096)])
        if [UInt8](piece) != memory.pages[page]?.bytes { wrong += 1 }
      }
    }
    #expect(wrong == 0)
    #expect(found == Set(memory.pages.keys))
  }

  @Test("Single pages can be read in any order, and holes are no pages", arguments: layouts)
  func randomAccess(_ compression: PageCompression) throws {
    let scratch = try Scratch()
    let seed = SeededGenerator.seed &+ 100
    let (memory, _) = try Self.writeChain(
      in: scratch, rounds: 3, compression: compression, seed: seed)
    var generator = SeededGenerator(seed: seed)
    var image = try ComposedImage(try ImageChain(scratch.path), stream: .process(pid: 7))
    var buffer = [UInt8](repeating: 0, count: 4096)
    for _ in 0..<100 {
      let known = memory.pages.keys.sorted().randomElement(using: &generator) ?? 0
      let page = known + generator.next() % 3
      let isThere = try buffer.withUnsafeMutableBytes { try image.read(page * pageBytes, into: $0) }
      #expect(isThere == (memory.pages[page] != nil))
      if let expected = memory.pages[page] { #expect(buffer == expected.bytes) }
    }
  }

  @Test("A chain as it was written is restorable, and its bytes are checked", arguments: layouts)
  func verification(_ compression: PageCompression) throws {
    for rounds in 1...3 {
      let scratch = try Scratch()
      let (memory, object) = try Self.writeChain(
        in: scratch, rounds: rounds, compression: compression,
        seed: SeededGenerator.seed &+ 200 &+ UInt64(rounds))
      let report = ChainVerifier.verify(scratch.path)
      #expect(report.verdict == .restorable, "\(report.findings)")
      #expect(report.findings.isEmpty)
      #expect(report.contentChecked)
      #expect(report.rounds.map(\.name) == (1...rounds).map { ModelWriter.name($0) })
      #expect(report.soundUpTo == ModelWriter.name(rounds))
      let top = report.rounds.last
      let count = UInt64(memory.pages.count + object.pages.count)
      #expect((top?.pagesPresent ?? 0) + (top?.pagesFromParent ?? 0) == count)
    }
  }

  @Test("Every round of a session can be checked by itself, with its parents")
  func singleRound() throws {
    let scratch = try Scratch()
    _ = try Self.writeChain(
      in: scratch, rounds: 3, compression: .standard, seed: SeededGenerator.seed)
    let middle = ChainVerifier.verify(scratch.path + "/round-002")
    #expect(middle.verdict == .consistentNotRestorable, "\(middle.findings)")
    #expect(middle.rounds.map(\.name) == ["round-001", "round-002"])
    #expect(ChainVerifier.verify(scratch.path + "/round-003/.").verdict == .restorable)
  }

  @Test("Pieces of a long run become one entry, and blocks never span entries")
  func mergedEntries() throws {
    let scratch = try Scratch()
    var generator = SeededGenerator(seed: SeededGenerator.seed)
    var memory = ModelMemory(using: &generator, runs: 0)
    for page in 100..<UInt64(2000) { memory.pages[page] = ModelPage(using: &generator) }
    var writer = ModelWriter(compression: .standard, generator: SeededGenerator(seed: 3))
    writer.generator = SeededGenerator(seed: 1)
    _ = try writer.write(memory, index: 1, kind: .frozen, in: try scratch.directory())
    var reader = try PagemapReader(
      "pagemap-7.img", in: try Directory.open(scratch.path + "/round-001", followSymlink: false))
    var entries = 0
    var pages: UInt64 = 0
    while try reader.advance() {
      entries += 1
      pages += reader.entry.range.pageCount
    }
    #expect(pages == 1900)
    // Only short reads, an eighth of them, may cut the run.
    #expect(entries < 8)
  }
}
