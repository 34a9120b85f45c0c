import Foundation
import Kernel
import Testing

@testable import Images

/// What the destination of a migration makes of CRIU's images as they come, good and hostile.
struct MoveWireTests {
  private struct Frame {
    var kind: UInt8
    var payload: [UInt8]
  }

  private let scratch: Scratch
  private var place: String { scratch.path + "/in" }

  /// A chain with a last round, as `receive` leaves it.
  init() throws {
    scratch = try Scratch()
    try scratch.write("canary", [1, 2, 3])
    try scratch.makeDirectory("in")
    let stream = try RecordedStream(rounds: 2, compression: .none, seed: 5)
    try scratch.write("stream", stream.bytes)
    let session = IncomingSession(
      into: try Directory.open(place, followSymlink: false), from: "test", sync: false,
      byteLimit: .max)
    let receiver = ImageReceiver(
      from: try channel("stream"), into: session,
      patience: LinkPatience(silenceNanoseconds: 5_000_000_000))
    _ = try receiver.run { _ in }
  }

  private func channel(_ name: String) throws -> ByteChannel {
    let number = open("\(scratch.path)/\(name)", O_RDONLY | O_CLOEXEC)
    return ByteChannel(reading: OwnedDescriptor(owning: number), subject: "test")
  }

  private static func frames(_ messages: [MoveMessage]) -> [Frame] {
    messages.map { Frame(kind: $0.frame.0.rawValue, payload: $0.frame.1) }
  }

  private static func file(_ name: String, _ bytes: [UInt8]) throws -> [MoveMessage] {
    var digest = try RunningDigest()
    bytes.withUnsafeBytes { digest.add($0) }
    return [
      .beginFile(name), .data(bytes),
      .endFile(byteCount: UInt64(bytes.count), digest: digest.value),
    ]
  }

  private static func images() throws -> [MoveMessage] {
    try file("core-7.img", Array(0..<200)) + file("pages-9.img", [UInt8](repeating: 7, count: 9000))
      + file("tcp-stream-1a.img", []) + [.dumped]
  }

  /// Takes the frames; the names that are in `criu.partial` when CRIU's images are complete.
  private func take(_ frames: [Frame], byteLimit: UInt64 = .max) throws -> [String] {
    var bytes: [UInt8] = []
    for (sequence, frame) in frames.enumerated() {
      let word = UInt64(frame.payload.count) | UInt64(frame.kind) << 32
      let checksum = frame.payload.withUnsafeBytes {
        WireFormat.checksum($0, header: word, sequence: UInt64(sequence))
      }
      for value in [word, checksum] {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
      }
      bytes += frame.payload
    }
    try scratch.write("move", bytes)
    let link = try MoveLink(
      channel("move"), patience: LinkPatience(silenceNanoseconds: 1_000_000_000))
    var state = try IncomingState(into: place, from: "test", byteLimit: byteLimit)
    while try !state.accept(link.take()) {}
    let names = try FileManager.default.contentsOfDirectory(atPath: place + "/criu.partial")
    return names.sorted()
  }

  private func expectClean(
    _ what: String, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let beside = Set(try FileManager.default.contentsOfDirectory(atPath: scratch.path))
    #expect(
      beside == ["canary", "in", "stream", "move"], "\(what)", sourceLocation: sourceLocation)
    #expect(try scratch.bytes("canary") == [1, 2, 3], sourceLocation: sourceLocation)
    let names = Set(try FileManager.default.contentsOfDirectory(atPath: place))
    #expect(
      names == ["latest", "memdump-session.img", "round-001", "round-002"], "\(what): \(names)",
      sourceLocation: sourceLocation)
  }

  @Test("CRIU's images arrive as they were sent") func whole() throws {
    let names = try take(Self.frames(try Self.images()))
    #expect(names == ["core-7.img", "pages-9.img", "tcp-stream-1a.img"])
    try expectClean("whole")
  }

  @Test("messages that are whole but hostile do no harm") func hostile() throws {
    var generator = SeededGenerator(seed: SeededGenerator.seed)
    var refusals = 0
    for turn in 0..<1500 {
      var frames = Self.frames(try Self.images())
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        let index = Int.random(in: 0..<frames.count, using: &generator)
        let other = Int.random(in: 0..<frames.count, using: &generator)
        let count = frames[index].payload.count
        switch Int.random(in: 0..<7, using: &generator) {
        case 0: frames[index].kind = UInt8.random(in: 0...45, using: &generator)
        case 1: frames.swapAt(index, other)
        case 2: frames.insert(frames[index], at: other)
        case 3 where frames.count > 1: frames.remove(at: index)
        case 4 where count > 0: frames[index].payload.removeLast(1)
        case 5: frames[index].payload += [0x2f, 0x2e, UInt8.random(in: 0...255, using: &generator)]
        default:
          guard count > 0 else { continue }
          let position = Int.random(in: 0..<count, using: &generator)
          frames[index].payload[position] = UInt8.random(in: 0...255, using: &generator)
        }
      }
      do { _ = try take(frames) } catch is ImageError { refusals += 1 }
      try expectClean("turn \(turn)")
    }
    #expect(refusals > 700)
  }

  @Test(
    "a name that no image of CRIU's has is refused before any file is made",
    arguments: [
      "../canary", "/etc/passwd", "..", ".", "", ".img", "a/b.img", "parent", "latest",
      "round-001", "memdump-session.img", "core-7.img\u{0}", "core-7.img\n", "Core-7.img",
      "core-7.img ", "../in/round-001/pages-1.img", "memdump-gate", "\u{2044}etc.img",
      String(repeating: "a", count: 120) + ".img",
    ])
  func names(name: String) throws {
    let messages = try Self.file(name, [1, 2, 3]) + [.dumped]
    #expect {
      try take(Self.frames(messages))
    } throws: {
      ($0 as? ImageError)?.kind == .stream
    }
    try expectClean(name.debugDescription)
  }

  @Test("images may not take more room than is allowed") func limit() throws {
    let frames = Self.frames(try Self.images())
    #expect(throws: ImageError.self) { try take(frames, byteLimit: 4096) }
    try expectClean("limit")
  }

  @Test("an image that is read whole is read only if it is short") func longImage() throws {
    try scratch.write("core-7.img", [])
    #expect(truncate("\(scratch.path)/core-7.img", (64 << 20) + 1) == 0)
    let directory = try Directory.open(scratch.path, followSymlink: false)
    let error = #expect(throws: ImageError.self) {
      try TaskState.makeRunning(pid: 7, in: directory)
    }
    #expect(error?.kind == .limit)
  }
}
