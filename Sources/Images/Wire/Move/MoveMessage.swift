/// Names one migration: whoever knows it may ask what became of it.
package struct MoveIdentity: Sendable, Equatable {
  /// Its 128 bits.
  package let high: UInt64
  package let low: UInt64

  /// One that nobody guesses.
  package static func random() -> MoveIdentity {
    var generator = SystemRandomNumberGenerator()
    return MoveIdentity(high: generator.next(), low: generator.next())
  }

  /// The identity with these bits.
  package init(high: UInt64, low: UInt64) { (self.high, self.low) = (high, low) }
}

/// What the two sides of a migration say to each other, on a connection beside that of the rounds.
///
///     source                      destination
///     move            ->          welcome, or aborted: before the process is touched
///     (rounds go over their own connection)
///                     <-          arrived
///     dumping         ->
///     file ... dumped ->          restores, and holds the copy
///                     <-          ready
///     go              ->          lets the copy run
///                     <-          running, or aborted: then nothing of it is left
///     settled         ->
///
/// Until `dumping` both connections may be made anew, with the same `move` first. Before `go`,
/// `aborted` from either side ends all, from `dumping` on a broken link, too: the source's process runs
/// on. After it only the destination knows; `ask` on a new connection gets its answer.
package enum MoveMessage: Sendable, Equatable {
  /// From the source: who is to be moved.
  case move(MoveIdentity, pid: Int32)
  /// The destination will restore it; whether its CRIU reads LZ4.
  case welcome(readsCompressed: Bool)
  /// The destination has all rounds, and waits for what is not memory.
  case arrived
  /// CRIU dumps the process from now on: a link that breaks is not made anew any more.
  case dumping
  /// One of CRIU's images begins.
  case beginFile(String)
  /// Bytes of that image.
  case data([UInt8])
  /// The image is complete: its length and digest.
  case endFile(byteCount: UInt64, digest: Digest128)
  /// CRIU's images are complete, the process is held and its connections are locked.
  case dumped
  /// The copy is there and has run no instruction. How long that took (ns).
  case ready(prepareNanoseconds: UInt64, criuNanoseconds: UInt64)
  /// The copy is to run: the source's process never will again, unless the answer is `aborted`.
  case go
  /// The copy runs, under this number.
  case running(pid: Int32)
  /// This side gives up, and why.
  case aborted(String)
  /// From the source, on a new connection: what became of it?
  case ask(MoveIdentity)
  /// The destination knows nothing of that migration.
  case unknown
  /// The source knows the outcome.
  case settled

  /// The first bytes of the first frame's payload, "MDMPMOVE" read as little endian.
  static let magic: UInt64 = 0x4556_4f4d_504d_444d
  /// Counts up when an older program could take a message for something else.
  static let version: UInt64 = 2
  private static let readsCompressed: UInt64 = 1

  /// The message in a frame.
  ///
  /// - Throws: `.stream` if there is none.
  init(_ header: FrameHeader, _ payload: UnsafeRawBufferPointer, from subject: String)
    throws(ImageError)
  {
    func numbers(_ count: Int) throws(ImageError) -> [UInt64] {
      guard let words = payload.words, words.count >= count else {
        throw ImageError(.stream, file: subject, "a message is too short")
      }
      return words
    }
    /// Of messages that may be the first of a connection.
    func greeting(_ count: Int) throws(ImageError) -> [UInt64] {
      guard let words = payload.words, words.count >= 2, words[0] == Self.magic else {
        throw ImageError(.stream, file: subject, "this is no migration of memdump's")
      }
      guard words[1] == Self.version else {
        throw ImageError(
          .stream, file: subject,
          "the other side migrates in version \(words[1]), and this memdump knows "
            + "\(Self.version)")
      }
      return try numbers(count)
    }
    func processID(_ word: UInt64) throws(ImageError) -> Int32 {
      guard let pid = Int32(exactly: word), pid > 0 else {
        throw ImageError(.stream, file: subject, "\(word) is no process id")
      }
      return pid
    }
    switch header.kind {
    case .move:
      let words = try greeting(5)
      self = .move(
        MoveIdentity(high: words[2], low: words[3]), pid: try processID(words[4]))
    case .welcome:
      self = .welcome(readsCompressed: try greeting(3)[2] & Self.readsCompressed != 0)
    case .beginFile: self = .beginFile(String(decoding: payload.prefix(512), as: UTF8.self))
    case .data: self = .data(Array(payload))
    case .endFile:
      let words = try numbers(3)
      self = .endFile(byteCount: words[0], digest: Digest128(high: words[1], low: words[2]))
    case .arrived: self = .arrived
    case .dumping: self = .dumping
    case .dumped: self = .dumped
    case .ready:
      let words = try numbers(2)
      self = .ready(prepareNanoseconds: words[0], criuNanoseconds: words[1])
    case .go: self = .go
    case .running: self = .running(pid: try processID(try numbers(1)[0]))
    case .aborted: self = .aborted(payload.printable)
    case .ask:
      let words = try greeting(4)
      self = .ask(MoveIdentity(high: words[2], low: words[3]))
    case .unknown: self = .unknown
    case .settled: self = .settled
    default:
      throw ImageError(.stream, file: subject, "a frame that is none of a migration's")
    }
  }

  /// The kind and the payload of its frame.
  var frame: (FrameKind, [UInt8]) {
    switch self {
    case .move(let identity, let pid):
      (
        .move,
        Self.bytes([Self.magic, Self.version, identity.high, identity.low, UInt64(pid)])
      )
    case .welcome(let readsCompressed):
      (
        .welcome,
        Self.bytes([Self.magic, Self.version, readsCompressed ? Self.readsCompressed : 0])
      )
    case .beginFile(let name): (.beginFile, Array(name.utf8))
    case .data(let bytes): (.data, bytes)
    case .endFile(let count, let digest):
      (.endFile, Self.bytes([count, digest.high, digest.low]))
    case .arrived: (.arrived, [])
    case .dumping: (.dumping, [])
    case .dumped: (.dumped, [])
    case .ready(let prepare, let criu): (.ready, Self.bytes([prepare, criu]))
    case .go: (.go, [])
    case .running(let pid): (.running, Self.bytes([UInt64(pid)]))
    case .aborted(let text): (.aborted, Array(text.utf8.prefix(500)))
    case .ask(let identity):
      (.ask, Self.bytes([Self.magic, Self.version, identity.high, identity.low]))
    case .unknown: (.unknown, [])
    case .settled: (.settled, [])
    }
  }

  private static func bytes(_ words: [UInt64]) -> [UInt8] {
    words.map(\.littleEndian).withUnsafeBytes { Array($0) }
  }
}
