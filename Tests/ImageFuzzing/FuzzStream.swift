internal import CXXHash
internal import Glibc
internal import Images
internal import Kernel

/// Streams as `memdump receive` takes them, made of arbitrary bytes. Nothing may be left but complete
/// rounds, and those must be sound.
///
/// The first byte of an input says what the others are: bytes of the stream as they are (odd), or
/// frames: kind, slot, length (two bytes), payload; and so on. Frames get the checksums that they
/// should have, and if bit 1 is set, ends of files that say what came of the file: otherwise a fuzzer
/// would never get beyond them.
enum FuzzStream {
  private static let directoryName = "in"
  private static let isRaw: UInt8 = 1
  private static let endsAreTrue: UInt8 = 2

  // MARK: What is done with a stream

  /// Stores it as rounds, in a directory of its own.
  ///
  /// - Parameter read: reads what was stored: whether it can be restored.
  static func receiveRounds(_ input: [UInt8], in place: FuzzPlace, _ read: (String) -> Bool) -> Bool
  {
    place.set([:])
    let path = "\(place.path)/\(directoryName)"
    guard mkdir(path, 0o700) == 0, let channel = channel(input, in: place),
      let directory = try? Directory.open(path, followSymlink: false)
    else { preconditionFailure("no place for a stream") }
    let receiver = ImageReceiver(
      from: channel,
      into: IncomingSession(into: directory, from: "fuzz", sync: false, byteLimit: byteLimit),
      patience: patience)
    _ = try? receiver.run { _ in }
    let rounds = receiver.rounds
    let known = Set(rounds + ["latest", "memdump-session.img"])
    precondition(known.isSuperset(of: names(path)), "left in the directory: \(names(path))")
    precondition(names(place.path) == [directoryName, "round-001", "round-002"], "left beside it")
    if !rounds.isEmpty {
      let report = ChainVerifier.verify(path)
      precondition(
        [.restorable, .consistentNotRestorable].contains(report.verdict),
        "stored, but: \(report.findings)")
      precondition(report.rounds.map(\.name) == rounds, "other rounds than those that came")
    }
    defer { remove(path) }
    return read(path)
  }

  /// Stores it as CRIU's images over the rounds of a good chain.
  ///
  /// - Returns: whether they came to their end.
  static func receiveState(_ input: [UInt8], in place: FuzzPlace) -> Bool {
    place.set(place.good)
    let before = names(place.path)
    guard let channel = channel(input, in: place) else { preconditionFailure("no stream") }
    var isComplete = false
    do throws(ImageError) {
      var state = try IncomingState(into: place.path, from: "fuzz", byteLimit: byteLimit)
      let link = try MoveLink(channel, patience: patience)
      while try !state.accept(link.take()) {}
      try state.complete()
      try StateImages.remove(from: place.path)
      isComplete = true
    } catch {}
    precondition(names(place.path) == before, "left: \(names(place.path))")
    return isComplete
  }

  private static let byteLimit: UInt64 = 1 << 24
  private static let patience = LinkPatience(silenceNanoseconds: 5_000_000_000)

  /// A channel from which the stream comes.
  private static func channel(_ input: [UInt8], in place: FuzzPlace) -> ByteChannel? {
    let path = "\(place.path)/stream"
    guard (try? FuzzPlace.write(stream(input), to: path)) != nil else { return nil }
    let number = open(path, O_RDONLY | O_CLOEXEC)
    unlink(path)
    if number < 0 { return nil }
    return ByteChannel(reading: OwnedDescriptor(owning: number), subject: "fuzz")
  }

  private static func names(_ path: String) -> [String] {
    (try? Directory.open(path, followSymlink: false).names().sorted()) ?? []
  }

  private static func remove(_ path: String) {
    guard let directory = try? Directory.open(path, followSymlink: false) else { return }
    for name in (try? directory.names()) ?? [] {
      if (try? directory.removeFile(name)) != nil { continue }
      remove("\(path)/\(name)")
    }
    rmdir(path)
  }

  // MARK: Inputs

  /// Kinds of frames, see docs/wire-format.md.
  private enum Kind: UInt8 {
    case hello = 1
    case beginRound, beginFile, data, endFile, commitRound
    case end = 8
    case dumped = 34
  }

  /// A frame of an input.
  private struct Frame {
    var kind: Kind
    var slot: UInt8 = 0
    var payload: [UInt8] = []

    var packed: [UInt8] {
      let count = payload.count
      return [kind.rawValue, slot, UInt8(count & 0xff), UInt8(count >> 8)] + payload
    }
  }

  private static func words(_ words: [UInt64]) -> [UInt8] {
    words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }
  }

  private static func file(_ name: String, slot: UInt8 = 0, _ bytes: [UInt8]) -> [Frame] {
    [
      Frame(kind: .beginFile, slot: slot, payload: Array(name.utf8)),
      Frame(kind: .data, slot: slot, payload: bytes), Frame(kind: .endFile, slot: slot),
    ]
  }

  /// The rounds of the good chain, as they are sent.
  static func roundSeed(_ place: FuzzPlace) -> [UInt8] {
    var frames = [
      Frame(
        kind: .hello,
        payload: words([0x4552_4957_504d_444d, 2, 5000]))
    ]
    for index in 1...2 {
      frames.append(Frame(kind: .beginRound, payload: words([UInt64(index)])))
      let prefix = "round-00\(index)/"
      for (name, bytes) in place.good.sorted(by: { $0.key < $1.key })
      where name.hasPrefix(prefix) {
        frames += file(String(name.dropFirst(prefix.count)), slot: 1, bytes)
      }
      frames.append(Frame(kind: .commitRound))
    }
    frames += file(FuzzPlace.sessionName, place.good[FuzzPlace.sessionName] ?? [])
    frames.append(Frame(kind: .end))
    return [endsAreTrue] + frames.flatMap(\.packed)
  }

  /// CRIU's images of the process of the good chain, as they are sent.
  static func stateSeed(_ place: FuzzPlace) -> [UInt8] {
    let core = Wire.image(
      [0x5456_4319, 0x5504_5809],
      [Wire.field(1, 1) + Wire.field(3, Wire.field(1, 3) + Wire.field(2, 0))])
    let pagemap = Wire.pagemap([Wire.entry(0x10000, 2, flags: 4), Wire.entry(0x20000, 1, flags: 4)])
    let frames =
      file("core-7.img", core) + file("pagemap-7.img", pagemap)
      + file("pages-1.img", Array(repeating: 7, count: 16))
      + file("inventory.img", Wire.inventory(version: 2)) + [Frame(kind: .dumped)]
    return [endsAreTrue] + frames.flatMap(\.packed)
  }

  /// The bytes that an input stands for.
  private static func stream(_ input: [UInt8]) -> [UInt8] {
    guard let mode = input.first else { return [] }
    if mode & isRaw != 0 { return Array(input.dropFirst()) }
    var bytes: [UInt8] = []
    var files: [UInt8: [UInt8]] = [:]
    var rest = input.dropFirst()
    var sequence: UInt64 = 0
    while rest.count >= 4 {
      let head = Array(rest.prefix(4))
      rest = rest.dropFirst(4)
      var payload = Array(rest.prefix(Int(head[2]) | Int(head[3]) << 8))
      rest = rest.dropFirst(payload.count)
      switch Kind(rawValue: head[0]) {
      case .beginFile: files[head[1]] = []
      case .data: files[head[1]]? += payload
      case .endFile where mode & endsAreTrue != 0:
        let file = files[head[1]] ?? []
        let digest = XXH3_128bits(file, file.count)
        payload = words([UInt64(file.count), digest.high64, digest.low64])
      default: break
      }
      let word = UInt64(payload.count) | UInt64(head[0]) << 32 | UInt64(head[1]) << 40
      sequence += 1
      let checksum = XXH3_64bits_withSeed(
        payload, payload.count, word &+ sequence &* 0x9e37_79b9_7f4a_7c15)
      bytes += words([word, checksum]) + payload
    }
    return bytes
  }
}
