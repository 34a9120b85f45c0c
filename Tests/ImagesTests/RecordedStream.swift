import Foundation
import Kernel

@testable import Images

/// A stream of images as bytes, to be taken apart and spoiled.
struct RecordedStream {
  /// A frame without its checksum.
  struct Frame: Equatable {
    var kind: UInt8
    var slot: UInt8
    var payload: [UInt8]
  }

  var frames: [Frame]

  /// Records what a dump of `rounds` rounds sends.
  init(rounds: Int, compression: PageCompression, seed: UInt64) throws {
    let scratch = try Scratch()
    let path = scratch.path + "/stream"
    try scratch.write("stream", [])
    var generator = SeededGenerator(seed: seed)
    var memory = ModelMemory(using: &generator, runs: 2)
    let object = ModelMemory(using: &generator, runs: 1)
    var writer = ModelWriter(compression: compression, generator: generator)
    let number = open(path, O_WRONLY | O_CLOEXEC)
    let channel = ByteChannel(writing: OwnedDescriptor(owning: number), subject: "recording")
    let link = try ImageLink(channel, patience: LinkPatience(silenceNanoseconds: 5_000_000_000))
    let place = SessionPlace(link: link)
    try place.write(ModelWriter.session(rounds: 0, outcome: .running), sync: false)
    for index in 1...rounds {
      if index > 1 { memory.step(using: &generator) }
      let isLast = index == rounds
      _ = try writer.write(
        memory, objects: isLast ? [9: object] : [:], index: index, kind: isLast ? .frozen : .live,
        to: place)
      try place.write(ModelWriter.session(rounds: index, outcome: .running), sync: false)
    }
    try place.write(ModelWriter.session(rounds: rounds), sync: false)
    try link.finish()
    frames = Self.parse(try scratch.bytes("stream"))
  }

  private static func parse(_ bytes: [UInt8]) -> [Frame] {
    var frames: [Frame] = []
    var offset = 0
    while offset < bytes.count {
      let length = (0..<4).reduce(0) { $0 | Int(bytes[offset + $1]) << (8 * $1) }
      frames.append(
        Frame(
          kind: bytes[offset + 4], slot: bytes[offset + 5],
          payload: Array(bytes[(offset + 16)..<(offset + 16 + length)])))
      offset += 16 + length
    }
    return frames
  }

  /// The stream, with checksums that are right.
  var bytes: [UInt8] {
    var bytes: [UInt8] = []
    for (sequence, frame) in frames.enumerated() {
      let word =
        UInt64(frame.payload.count) | UInt64(frame.kind) << 32 | UInt64(frame.slot) << 40
      let checksum = frame.payload.withUnsafeBytes {
        WireFormat.checksum($0, header: word, sequence: UInt64(sequence))
      }
      for value in [word, checksum] {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
      }
      bytes += frame.payload
    }
    return bytes
  }

  /// Makes the ends of all files say what came of them: only then does damage to a file get as far
  /// as the checks of a round.
  mutating func repairFileEnds() {
    var digests: [UInt8: (count: UInt64, bytes: [UInt8])] = [:]
    for index in frames.indices {
      let slot = frames[index].slot
      switch FrameKind(rawValue: frames[index].kind) {
      case .beginFile: digests[slot] = (0, [])
      case .data: digests[slot]?.bytes += frames[index].payload
      case .endFile:
        guard let file = digests[slot] else { continue }
        guard var running = try? RunningDigest() else { continue }
        file.bytes.withUnsafeBytes { running.add($0) }
        let digest = running.value
        frames[index].payload = [UInt64(file.bytes.count), digest.high, digest.low]
          .flatMap { word in withUnsafeBytes(of: word.littleEndian) { Array($0) } }
      default: break
      }
    }
  }
}
