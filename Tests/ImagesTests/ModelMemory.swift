import Kernel

@testable import Images

/// The bytes of a page, made from a seed: all zero, repetitive, or random.
struct ModelPage: Equatable {
  enum Kind: CaseIterable { case zero, repetitive, random, mostlyZero }

  var kind: Kind
  var seed: UInt64

  init(using generator: inout SeededGenerator) {
    kind = Kind.allCases.randomElement(using: &generator) ?? .zero
    seed = generator.next()
  }

  /// A mebibyte of random bytes that random pages are cut from.
  private static let noise: [UInt8] = {
    var generator = SeededGenerator(seed: 1)
    let words = (0..<(1 << 17)).map { _ in generator.next() }
    return words.withUnsafeBytes { [UInt8]($0) }
  }()

  var bytes: [UInt8] {
    switch kind {
    case .zero: return [UInt8](repeating: 0, count: 4096)
    case .repetitive:
      return [UInt64](repeating: seed | 1, count: 512).withUnsafeBytes { [UInt8]($0) }
    case .random:
      let start = Int(seed % UInt64(Self.noise.count - 4096))
      return [UInt8](Self.noise[start..<(start + 4096)])
    case .mostlyZero:
      var bytes = [UInt8](repeating: 0, count: 4096)
      bytes[Int(seed % 4096)] = 7
      return bytes
    }
  }
}

/// What a process holds, and how the next round differs from it.
struct ModelMemory {
  /// Populated pages by page number.
  var pages: [UInt64: ModelPage] = [:]
  /// Pages that the last round took from its parent.
  var unchanged: Set<UInt64> = []

  /// A few runs of pages with holes between them; some pages further apart than 4 GiB.
  init(using generator: inout SeededGenerator, runs: Int = 6) {
    var page: UInt64 = 16
    for _ in 0..<runs {
      page += generator.next() % 40
      if generator.next() % 4 == 0 { page += 1 << 21 }
      let length = generator.next() % 4 == 0 ? 400 : generator.next() % 90 + 1
      // Runs of one kind compress as real memory does; mixed ones test every rule.
      let isUniform = generator.next() % 2 == 0
      let sample = ModelPage(using: &generator)
      for _ in 0..<length {
        pages[page] = isUniform ? sample : ModelPage(using: &generator)
        page += 1
      }
    }
  }

  /// Changes, adds and removes pages; the rest is unchanged.
  mutating func step(using generator: inout SeededGenerator) {
    unchanged = Set(pages.keys)
    for page in pages.keys.sorted() {
      switch generator.next() % 12 {
      case 0:
        pages[page] = ModelPage(using: &generator)
        unchanged.remove(page)
      case 1:
        pages[page] = nil
        unchanged.remove(page)
      case 2:
        if pages[page + 1] == nil { pages[page + 1] = ModelPage(using: &generator) }
      default: break
      }
    }
  }

  /// One area around each run of pages, as `mm` would have it.
  var areas: [VMARecord] {
    var areas: [VMARecord] = []
    for page in pages.keys.sorted() {
      if let last = areas.last, last.range.end == page * pageBytes {
        areas[areas.count - 1].range.end += pageBytes
      } else {
        areas.append(
          VMARecord(
            range: PageRange(start: page * pageBytes, pageCount: 1), fileOffset: 0, protection: 3,
            mapFlags: 0x22, status: 0x201, adviceBits: 0, sharedObjectID: 0, kind: .anonymous,
            treatment: .tracked, path: ""))
      }
    }
    return areas
  }
}

/// Writes model memories as the engine would.
struct ModelWriter {
  static let target = TargetIdentity(pid: 7, startTicks: 99, bootID: "boot", command: "model")

  var compression: PageCompression
  var generator: SeededGenerator

  /// Writes one round with the process's memory and those of shared objects.
  mutating func write(
    _ memory: ModelMemory, objects: [UInt64: ModelMemory] = [:], index: Int, kind: RoundKind,
    in session: borrowing Directory
  ) throws -> RoundTotals {
    try write(
      memory, objects: objects, index: index, kind: kind, to: SessionPlace(session.reopen()))
  }

  /// As above, also over a link.
  mutating func write(
    _ memory: ModelMemory, objects: [UInt64: ModelMemory] = [:], index: Int, kind: RoundKind,
    to place: borrowing SessionPlace
  ) throws -> RoundTotals {
    var writer = try RoundWriter(
      in: place, name: Self.name(index), pid: Self.target.pid,
      parentName: index > 1 ? Self.name(index - 1) : nil, compression: compression, sync: false)
    try append(memory, to: &writer)
    for (id, object) in objects.sorted(by: { $0.key < $1.key }) {
      try writer.beginSharedObject(id: id)
      try append(object, to: &writer)
    }
    var space = AddressSpace()
    space.vmas = memory.areas
    space.auxiliaryVector = [6, 4096, 0, 0]
    return try writer.commit(
      RoundDescription(
        index: index, kind: kind, target: Self.target, addressSpace: space,
        statistics: RoundStatistics(), uptimeMicroseconds: 5_000_000, startedAt: 1_700_000_000))
  }

  static func name(_ index: Int) -> String { index < 10 ? "round-00\(index)" : "round-0\(index)" }

  static func session(rounds: Int, outcome: SessionOutcome = .complete) -> SessionRecord {
    SessionRecord(
      tool: "memdump test", target: target, startedAt: 1, updatedAt: 2, outcome: outcome,
      rounds: rounds == 0 ? [] : (1...rounds).map { name($0) })
  }

  private mutating func append(_ memory: ModelMemory, to writer: inout RoundWriter) throws {
    let chunk = Chunk(compression: compression)
    func flush(_ writer: inout RoundWriter) throws {
      chunk.encode()
      try writer.append(chunk)
      chunk.reset()
    }
    for run in Self.runs(of: memory) {
      if run.isParent {
        let range = PageRange(start: run.first * pageBytes, pageCount: run.count)
        while !chunk.appendParent(range) { try flush(&writer) }
        continue
      }
      var done: UInt64 = 0
      while done < run.count {
        if chunk.isFull { try flush(&writer) }
        let first = run.first + done
        let isShort = generator.next() % 8 == 0
        let taken = try chunk.appendPresent(
          start: first * pageBytes, pageLimit: Int(run.count - done), flags: [.present, .lazy]
        ) { buffer throws(KernelError) in
          let room = buffer.count / 4096
          let count = isShort ? max(1, room / 2) : room
          for index in 0..<count {
            let bytes = memory.pages[first + UInt64(index)]?.bytes ?? []
            UnsafeMutableRawBufferPointer(rebasing: buffer[(index * 4096)..<((index + 1) * 4096)])
              .copyBytes(from: bytes)
          }
          return count
        }
        if taken == 0 { precondition(chunk.isFull) }
        done += UInt64(taken)
      }
    }
    try flush(&writer)
  }

  private struct Run {
    var first: UInt64
    var count: UInt64
    var isParent: Bool
  }

  private static func runs(of memory: ModelMemory) -> [Run] {
    var runs: [Run] = []
    for page in memory.pages.keys.sorted() {
      let isParent = memory.unchanged.contains(page)
      if let last = runs.last, last.first + last.count == page, last.isParent == isParent {
        runs[runs.count - 1].count += 1
      } else {
        runs.append(Run(first: page, count: 1, isParent: isParent))
      }
    }
    return runs
  }
}
