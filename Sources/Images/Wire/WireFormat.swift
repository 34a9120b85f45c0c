internal import CXXHash

/// What a stream of images is made of; `docs/wire-format.md` describes it.
enum WireFormat {
  /// The first bytes of the first frame's payload, "MDMPWIRE" read as little endian.
  static let magic: UInt64 = 0x4552_4957_504d_444d
  /// Counts up when a stream of an older program could be taken for something else.
  static let version: UInt32 = 2
  /// Set in the hello of a sender that can hear the receiver.
  static let wantsAnswers: UInt32 = 1

  /// Bytes of a frame before its payload.
  static let headerBytes = 16
  /// The most bytes of a payload.
  static let payloadLimit = 1 << 20
  /// Files that may be open at once.
  static let slotLimit = 8
  /// Files that a round may have: three for each stream, and a few.
  static let fileLimit = 1 << 18
  /// The most bytes of a file that holds no pages: pagemaps and records.
  static let recordLimit: UInt64 = 1 << 40
  /// The most bytes of a small image: inventory, statistics, session.
  static let smallLimit: UInt64 = 16 << 20
  /// Rounds of one session.
  static let roundLimit = ImageChain.depthLimit

  /// How often a side that has nothing else to say shows that it lives (ns), to one that puts up with
  /// so much silence.
  static func aliveNanoseconds(silence: UInt64) -> UInt64 {
    min(3_000_000_000, max(silence / 4, 100_000_000))
  }

  /// Seeds a frame's checksum with its header and its place in the stream, so that no frame can be
  /// lost, doubled or moved unnoticed.
  static func checksum(_ payload: UnsafeRawBufferPointer, header: UInt64, sequence: UInt64)
    -> UInt64
  {
    XXH3_64bits_withSeed(
      payload.baseAddress, payload.count, header &+ (sequence &+ 1) &* 0x9e37_79b9_7f4a_7c15)
  }
}

/// What a frame says.
enum FrameKind: UInt8 {
  /// Magic, version, abilities, and the silence (ms) that breaks the link; both sides' first frame.
  case hello = 1
  /// A round begins; its number.
  case beginRound = 2
  /// A file begins in a slot; its name.
  case beginFile = 3
  /// Bytes of the file in a slot.
  case data = 4
  /// The file in a slot is complete; its length and digest.
  case endFile = 5
  /// The round is complete.
  case commitRound = 6
  /// The round will not be completed.
  case dropRound = 7
  /// The sender is done.
  case end = 8
  /// Nothing: the other side lives.
  case alive = 9
  /// From the receiver: so many rounds (4 bytes) are stored and checked; for `end`, all is done.
  case acknowledge = 16
  /// From the receiver: it gives up, and why (text).
  case refuse = 17

  // A migration's own connection; `MoveMessage` says what they mean.
  case move = 32
  case welcome = 33
  case dumped = 34
  case ready = 35
  case go = 36
  case running = 37
  case aborted = 38
  case ask = 39
  case unknown = 40
  case settled = 41
  case arrived = 42
  case dumping = 43
}

/// A frame before its payload.
struct FrameHeader: Equatable {
  var kind: FrameKind
  var slot: UInt8 = 0
  var payloadBytes: Int

  /// The first eight bytes: length, kind, slot, and two bytes of zero.
  var word: UInt64 {
    UInt64(payloadBytes) | UInt64(kind.rawValue) << 32 | UInt64(slot) << 40
  }

  init(_ kind: FrameKind, slot: UInt8 = 0, payloadBytes: Int) {
    self.kind = kind
    self.slot = slot
    self.payloadBytes = payloadBytes
  }

  /// Nil if no frame begins like this.
  init?(word: UInt64) {
    let length = Int(word & 0xffff_ffff)
    guard let kind = FrameKind(rawValue: UInt8(truncatingIfNeeded: word >> 32)), word >> 48 == 0,
      length <= WireFormat.payloadLimit
    else { return nil }
    self.kind = kind
    slot = UInt8(truncatingIfNeeded: word >> 40)
    payloadBytes = length
  }
}

/// Which names a stream may give to files. Anything else is refused before a file is touched.
enum WireName {
  /// The most bytes of a file of this name in a round; nil if no round has such a file.
  static func limit(inRound name: String) -> UInt64? {
    if name == ImageFormat.inventoryName || name == ImageFormat.statisticsName {
      return WireFormat.smallLimit
    }
    if ImageStream(pagemapName: name) != nil { return WireFormat.recordLimit }
    if let id: UInt32 = number(in: name, after: "pages-"), ImageFormat.pagesName(id) == name {
      return UInt64.max
    }
    if let pid: Int32 = number(in: name, after: "mm-"), pid > 0,
      ImageFormat.mmName(pid: pid) == name
    {
      return WireFormat.recordLimit
    }
    if let pid: Int32 = number(in: name, after: "memdump-"), pid > 0,
      ImageFormat.recordName(pid: pid) == name
    {
      return WireFormat.recordLimit
    }
    return nil
  }

  private static func number<Value: FixedWidthInteger>(in name: String, after prefix: String)
    -> Value?
  {
    guard name.hasPrefix(prefix), name.hasSuffix(".img") else { return nil }
    return Value(name.dropFirst(prefix.count).dropLast(4))
  }
}
