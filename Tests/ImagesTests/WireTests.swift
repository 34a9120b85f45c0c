import Foundation
import Kernel
import Testing

@testable import Images

/// What a receiver makes of streams, good and hostile.
struct WireTests {
  /// What came of one stream.
  private struct Reception {
    var error: ImageError?
    var rounds: [String]
  }

  private let scratch: Scratch
  private var place: String { scratch.path + "/in" }

  init() throws {
    scratch = try Scratch()
    try scratch.write("canary", [1, 2, 3])
  }

  private func receive(_ bytes: [UInt8], byteLimit: UInt64 = .max) throws -> Reception {
    try? FileManager.default.removeItem(atPath: place)
    try scratch.makeDirectory("in")
    try scratch.write("stream", bytes)
    let number = open(scratch.path + "/stream", O_RDONLY | O_CLOEXEC)
    let channel = ByteChannel(reading: OwnedDescriptor(owning: number), subject: "test")
    let session = IncomingSession(
      into: try Directory.open(place, followSymlink: false), from: "test", sync: false,
      byteLimit: byteLimit)
    let receiver = ImageReceiver(
      from: channel, into: session, patience: LinkPatience(silenceNanoseconds: 5_000_000_000))
    do {
      return Reception(error: nil, rounds: try receiver.run { _ in }.rounds)
    } catch { return Reception(error: error, rounds: receiver.rounds) }
  }

  /// Expects that what is there is sound, and that nothing else was touched.
  private func expectClean(
    _ reception: Reception, _ what: String, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let beside = try FileManager.default.contentsOfDirectory(atPath: scratch.path).sorted()
    #expect(beside == ["canary", "in", "stream"], "\(what)", sourceLocation: sourceLocation)
    #expect(try scratch.bytes("canary") == [1, 2, 3], "\(what)", sourceLocation: sourceLocation)
    var expected = Set(reception.rounds)
    if !reception.rounds.isEmpty { expected.insert("latest") }
    let names = try FileManager.default.contentsOfDirectory(atPath: place)
    let others = Set(names).subtracting(expected).subtracting(["memdump-session.img"])
    #expect(others.isEmpty, "\(what): \(others)", sourceLocation: sourceLocation)
    let all = FileManager.default.enumerator(atPath: place)?.compactMap { $0 as? String } ?? []
    for name in all {
      guard
        let target = try? FileManager.default.destinationOfSymbolicLink(
          atPath: "\(place)/\(name)")
      else { continue }
      let isOurs =
        name == "latest" && reception.rounds.last == target
        || name.hasSuffix("/parent") && target.hasPrefix("../round-")
      #expect(isOurs, "\(what): \(name) -> \(target)", sourceLocation: sourceLocation)
    }
    if !reception.rounds.isEmpty {
      let report = ChainVerifier.verify(place)
      #expect(
        [.restorable, .consistentNotRestorable].contains(report.verdict),
        "\(what): \(report.findings)", sourceLocation: sourceLocation)
      #expect(report.rounds.map(\.name) == reception.rounds, sourceLocation: sourceLocation)
    }
  }

  @Test("what is sent is what arrives", arguments: [PageCompression.none, .standard])
  func whole(compression: PageCompression) throws {
    let stream = try RecordedStream(
      rounds: 4, compression: compression, seed: SeededGenerator.seed)
    let reception = try receive(stream.bytes)
    #expect(reception.error == nil)
    #expect(reception.rounds.count == 4)
    try expectClean(reception, "whole")
    #expect(ChainVerifier.verify(place).verdict == .restorable)
  }

  @Test("a stream that ends anywhere leaves complete rounds alone") func truncated() throws {
    let stream = try RecordedStream(rounds: 3, compression: .standard, seed: SeededGenerator.seed)
    var generator = SeededGenerator(seed: SeededGenerator.seed)
    let bytes = stream.bytes
    for _ in 0..<300 {
      let count = Int.random(in: 0..<bytes.count, using: &generator)
      let reception = try receive(Array(bytes[..<count]))
      #expect(reception.error?.kind == .link, "cut at \(count): \(String(describing: reception))")
      try expectClean(reception, "cut at \(count)")
    }
  }

  @Test("random bytes changed, lost or added are found out") func flipped() throws {
    let stream = try RecordedStream(rounds: 3, compression: .standard, seed: SeededGenerator.seed)
    var generator = SeededGenerator(seed: SeededGenerator.seed)
    let bytes = stream.bytes
    for turn in 0..<500 {
      var bad = bytes
      let position = Int.random(in: 0..<bad.count, using: &generator)
      switch turn % 3 {
      case 0: bad[position] ^= UInt8.random(in: 1...255, using: &generator)
      case 1: bad.remove(at: position)
      default: bad.insert(UInt8.random(in: 0...255, using: &generator), at: position)
      }
      if bad == bytes { continue }
      let reception = try receive(bad)
      #expect(reception.error != nil, "turn \(turn), byte \(position)")
      try expectClean(reception, "turn \(turn), byte \(position)")
    }
  }

  @Test("frames that are whole but hostile do no harm") func hostile() throws {
    let streams = try [PageCompression.none, .standard].map {
      try RecordedStream(rounds: 3, compression: $0, seed: SeededGenerator.seed)
    }
    var generator = SeededGenerator(seed: SeededGenerator.seed)
    var refusals = 0
    for turn in 0..<500 {
      var stream = streams[turn % 2]
      let whole = stream
      for _ in 0..<Int.random(in: 1...3, using: &generator) { spoil(&stream, &generator) }
      if turn % 4 < 2 { stream.repairFileEnds() }
      let reception = try receive(stream.bytes)
      if reception.error != nil { refusals += 1 }
      // What ends well is what was sent, but for frames that mean nothing.
      if reception.error == nil && stream.frames != whole.frames {
        #expect(reception.rounds.count <= 3, "turn \(turn)")
      }
      try expectClean(reception, "turn \(turn)")
    }
    #expect(refusals > 400)
  }

  private func spoil(_ stream: inout RecordedStream, _ generator: inout SeededGenerator) {
    let index = Int.random(in: 1..<stream.frames.count, using: &generator)
    let other = Int.random(in: 1..<stream.frames.count, using: &generator)
    let count = stream.frames[index].payload.count
    switch Int.random(in: 0..<9, using: &generator) {
    case 0: stream.frames.remove(at: index)
    case 1: stream.frames.insert(stream.frames[index], at: other)
    case 2: stream.frames.swapAt(index, other)
    case 3: stream.frames[index].kind = UInt8.random(in: 0...20, using: &generator)
    case 4: stream.frames[index].slot = UInt8.random(in: 0...255, using: &generator)
    case 5 where count > 0:
      stream.frames[index].payload.removeLast(Int.random(in: 1...count, using: &generator))
    case 6:
      stream.frames[index].payload += (0..<Int.random(in: 1...64, using: &generator)).map { _ in
        UInt8.random(in: 0...255, using: &generator)
      }
    default:
      guard count > 0 else { return }
      let position = Int.random(in: 0..<count, using: &generator)
      stream.frames[index].payload[position] = UInt8.random(in: 0...255, using: &generator)
    }
  }

  @Test(
    "a name that is no round's is refused before any file is made",
    arguments: [
      "../canary", "/etc/passwd", "..", ".", "", "a/b", "round-001", "latest", "parent",
      "memdump-session.img", "memdump-session.img.new", "pages-1.img/..", "pages-01.img",
      "pages-+1.img", "pages-99999999999.img", "pagemap--1.img", "pagemap-0.img", "mm-07.img",
      "pages-1.img\u{0}", "pages-1.img\n", "PAGES-1.IMG", "core-7.img", "inventory.img ",
      "\u{2044}etc", String(repeating: "a", count: 70), "stats-dump/../../canary",
    ])
  func names(name: String) throws {
    var stream = try RecordedStream(rounds: 1, compression: .none, seed: 5)
    let begins = stream.frames.indices.filter {
      stream.frames[$0].kind == FrameKind.beginFile.rawValue
    }
    // The second is the first of the round: before it comes the session's record.
    stream.frames[begins[1]].payload = Array(name.utf8)
    let reception = try receive(stream.bytes)
    #expect(reception.error?.kind == .stream, "\(String(describing: reception.error))")
    try expectClean(reception, name)
    #expect(reception.rounds.isEmpty)
    stream.frames[begins[0]].payload = Array(name.utf8)
    if name != "memdump-session.img" {
      let reception = try receive(stream.bytes)
      #expect(reception.error?.kind == .stream)
      try expectClean(reception, name)
    }
  }

  @Test("a stream may not store more than it is allowed to") func limit() throws {
    let stream = try RecordedStream(rounds: 3, compression: .none, seed: 5)
    let reception = try receive(stream.bytes, byteLimit: 30_000)
    #expect(reception.error?.kind == .limit)
    try expectClean(reception, "limit")
  }

  /// Words of a greeting, or of an acknowledgement.
  private static func frame(_ kind: FrameKind, _ words: [UInt64]) -> RecordedStream.Frame {
    RecordedStream.Frame(
      kind: kind.rawValue, slot: 0,
      payload: words.flatMap { word in withUnsafeBytes(of: word.littleEndian) { Array($0) } })
  }

  @Test("whatever a hostile receiver answers, the link ends and nothing else")
  func hostileAnswers() throws {
    let hello = [WireFormat.magic, UInt64(WireFormat.version), 30_000, 0, 0, 0, 0, 0]
    var answers: [[RecordedStream.Frame]] = [
      [], [Self.frame(.hello, [])], [Self.frame(.hello, Array(hello[..<7]))],
      [Self.frame(.acknowledge, [0])], [Self.frame(.refuse, [1])],
      [Self.frame(.hello, hello), Self.frame(.acknowledge, [1])],
      [Self.frame(.hello, hello), Self.frame(.acknowledge, [.max])],
      [Self.frame(.hello, hello), Self.frame(.hello, Array(hello[..<2]))],
      [Self.frame(.hello, hello), Self.frame(.beginRound, [1])],
    ]
    // A magic number, a version, and counts of rounds that this dump has not sent.
    for (index, value) in [(0, 1), (1, 1), (3, 1), (3, .max), (3, 1 << 63)] as [(Int, UInt64)] {
      var words = hello
      words[index] = value
      answers.append([Self.frame(.hello, words)])
    }
    for (turn, frames) in answers.enumerated() {
      var stream = try RecordedStream(rounds: 1, compression: .none, seed: 5)
      stream.frames = frames
      var ends: [Int32] = [0, 0]
      #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
      let bytes = stream.bytes
      #expect(write(ends[1], bytes, bytes.count) == bytes.count)
      shutdown(ends[1], Int32(SHUT_WR))
      let error = #expect(throws: ImageError.self, "turn \(turn)") {
        let link = try ImageLink(
          ByteChannel(socket: OwnedDescriptor(owning: ends[0]), subject: "test"),
          patience: LinkPatience(silenceNanoseconds: 5_000_000_000))
        try link.finish()
      }
      // `.session`: it claims rounds of a dump that sends its first one.
      #expect(
        [.link, .stream, .session].contains(error?.kind),
        "turn \(turn): \(String(describing: error))")
      close(ends[1])
    }
  }

  @Test("a round is under way from its begin, or the end of the one before, to its acknowledgement")
  func progress() {
    var progress = LinkProgress()
    progress.begin(now: 100)
    progress.commit(round: 1)
    #expect(!progress.isSettled)
    progress.begin(now: 110)
    progress.commit(round: 2)
    progress.acknowledge(rounds: 1, now: 300)
    #expect(progress.roundsAcknowledged == 1)
    #expect(!progress.isSettled)
    progress.acknowledge(rounds: 2, now: 350)
    progress.acknowledge(rounds: 2, now: 360)
    #expect(progress.isSettled)
    progress.begin(now: 500)
    progress.commit(round: 3)
    progress.acknowledge(rounds: 3, now: 520)
    let all = progress.takeAcknowledgements()
    #expect(all.map(\.round) == [1, 2, 3])
    #expect(all.map(\.nanoseconds) == [200, 50, 20])
    #expect(progress.takeAcknowledgements().isEmpty)
  }

  @Test("an acknowledged round is stored, and a silent end is noticed") func answers() throws {
    var ends: [Int32] = [0, 0]
    #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
    let (sender, taker) = (ends[0], ends[1])
    let place = place
    try scratch.makeDirectory("in")
    let thread = try OSThread(name: "receiver") {
      let channel = ByteChannel(socket: OwnedDescriptor(owning: taker), subject: "test")
      guard let directory = try? Directory.open(place, followSymlink: false) else { return }
      let receiver = ImageReceiver(
        from: channel,
        into: IncomingSession(into: directory, from: "test", sync: true, byteLimit: .max),
        patience: LinkPatience(silenceNanoseconds: 5_000_000_000))
      _ = try? receiver.run { _ in }
    }
    var generator = SeededGenerator(seed: 3)
    let memory = ModelMemory(using: &generator)
    var writer = ModelWriter(compression: .standard, generator: generator)
    let link = try ImageLink(
      ByteChannel(socket: OwnedDescriptor(owning: sender), subject: "test"),
      patience: LinkPatience(silenceNanoseconds: 5_000_000_000))
    let session = SessionPlace(link: link)
    _ = try writer.write(memory, index: 1, kind: .live, to: session)
    try link.settle()
    #expect(link.roundsAcknowledged == 1)
    #expect(ChainVerifier.verify(place).verdict == .consistentNotRestorable)
    #expect(throws: ImageError.self) {
      var record = ModelWriter.session(rounds: 2)
      record.rounds = ["round-007"]
      try session.write(record, sync: false)
      try link.finish()
    }
    thread.join()
    #expect(ChainVerifier.verify(place).verdict == .consistentNotRestorable)
  }
}
