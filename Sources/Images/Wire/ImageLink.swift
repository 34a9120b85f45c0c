package import Kernel
internal import SystemPackage

/// The sending end of a stream of images: puts a session's files on a channel, round by round.
///
/// After an error the link is of no more use, and says so. Thread-safe; a thread of its own shows
/// the receiver that this side lives while there is nothing to send.
package final class ImageLink: @unchecked Sendable {
  // Sendable because everything that changes is only touched with `mutex` held.
  private let mutex = ThreadMutex()
  private let channel: ByteChannel
  private var frames: FrameReader
  private var output: FrameWriter
  private var patience: LinkPatience
  private var stallNanoseconds: UInt64?
  private var lastHeard = MonotonicClock.now
  private var lastSent = MonotonicClock.now
  private var hasGreeted = false
  /// Whether the receiver will say no more.
  private var isOver = false
  /// Answers that came: the number of rounds that the receiver has, and of answers at all.
  private var roundsAcknowledged: UInt64 = 0
  private var acknowledgements = 0
  private var failure: ImageError?
  private var slots = [Bool](repeating: false, count: WireFormat.slotLimit)
  private var isInRound = false
  /// What was sent last of each process, as the parent of what comes next.
  private var parents: [Int32: ParentRound] = [:]
  private var heartbeat: Heartbeat?

  /// How people call the other end.
  package var subject: String { channel.subject }
  /// Whether the receiver answers: over a pipe it cannot.
  package var hearsAnswers: Bool { channel.hasInput }

  /// Greets the receiver, and waits for its greeting if it can answer.
  package init(_ channel: ByteChannel, patience: LinkPatience) throws(ImageError) {
    self.channel = channel
    self.patience = patience
    frames = FrameReader(channel)
    output = FrameWriter(channel)
    let abilities = channel.hasInput ? WireFormat.wantsAnswers : 0
    try locked { (link) throws(ImageError) in
      try link.put(
        .hello, words: [WireFormat.magic, UInt64(WireFormat.version) | UInt64(abilities) << 32])
      if link.channel.hasInput { try link.waitUntil { $0.hasGreeted } }
    }
    heartbeat = try onFile(channel.subject) { () throws(KernelError) in
      try Heartbeat(nanoseconds: WireFormat.aliveNanoseconds) { [weak self] in self?.beat() }
    }
  }

  /// How long nothing may move while a process stands still for it (ns); nil for the usual patience.
  package func limitStall(nanoseconds: UInt64?) {
    mutex.withLock { stallNanoseconds = nanoseconds }
  }

  /// From now on waits for nobody's wish to stop, and for nothing much longer: for the last words
  /// after a failure.
  package func beginFarewell() {
    mutex.withLock { patience = LinkPatience(silenceNanoseconds: 2_000_000_000) }
  }

  /// A round begins; its name is that of a round.
  func beginRound(_ name: String) throws(ImageError) {
    guard let number = RoundName(name)?.number else {
      throw ImageError(.misuse, file: subject, "\(name) is no name of a round")
    }
    try locked { (link) throws(ImageError) in
      try link.put(.beginRound, words: [number])
      link.isInRound = true
    }
  }

  /// A file begins. Outside rounds only the session's record may.
  func beginFile(_ name: String) throws(ImageError) -> UInt8 {
    try locked { (link) throws(ImageError) in
      guard let slot = link.slots.firstIndex(of: false) else {
        throw ImageError(.misuse, file: link.subject, "too many files at once")
      }
      try link.put(.beginFile, slot: UInt8(slot), text: name)
      link.slots[slot] = true
      return UInt8(slot)
    }
  }

  /// More bytes of the file in `slot`.
  func append(_ bytes: UnsafeRawBufferPointer, slot: UInt8) throws(ImageError) {
    try locked { (link) throws(ImageError) in
      var rest = bytes
      while !rest.isEmpty {
        let count = min(rest.count, WireFormat.payloadLimit)
        let payload = UnsafeRawBufferPointer(rebasing: rest[..<count])
        try link.put { (output, whenFull) throws(ImageError) in
          try output.put(.data, slot: slot, payload, whenFull: whenFull)
        }
        rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      }
    }
  }

  /// The file in `slot` is complete.
  func endFile(slot: UInt8, byteCount: UInt64, digest: Digest128) throws(ImageError) {
    try locked { (link) throws(ImageError) in
      try link.put(.endFile, slot: slot, words: [byteCount, digest.high, digest.low])
      link.slots[Int(slot)] = false
    }
  }

  /// The round is complete: returns when the receiver has checked and stored it, if it can answer.
  func commitRound(_ parent: ParentRound, pid: Int32) throws(ImageError) {
    try locked { (link) throws(ImageError) in
      try link.put(.commitRound, words: [])
      link.isInRound = false
      if link.channel.hasInput {
        let wanted = RoundName(parent.name)?.number ?? 0
        try link.waitUntil { $0.roundsAcknowledged >= wanted }
      }
      link.parents[pid] = parent
    }
  }

  /// The round came to nothing.
  func dropRound() {
    mutex.withLock {
      guard isInRound, failure == nil else { return }
      isInRound = false
      slots = [Bool](repeating: false, count: WireFormat.slotLimit)
      try? put(.dropRound, words: [])
    }
  }

  /// Nothing more comes: returns when the receiver has answered, if it can.
  package func finish() throws(ImageError) {
    try locked { (link) throws(ImageError) in
      let before = link.acknowledgements
      try link.put(.end, words: [])
      if link.channel.hasInput { try link.waitUntil { $0.acknowledgements > before } }
      link.failure = .link(link.subject, "the stream has ended")
    }
  }

  /// What was sent last of process `pid`; nil before its first round.
  func parent(pid: Int32) -> ParentRound? { mutex.withLock { parents[pid] } }

  // Below here the mutex is held.

  private func locked<Value>(_ body: (ImageLink) throws(ImageError) -> Value) throws(ImageError)
    -> Value
  {
    try mutex.withLock { () throws(ImageError) in
      if let failure { throw failure }
      do throws(ImageError) { return try body(self) } catch {
        failure = error
        throw error
      }
    }
  }

  private func put(_ kind: FrameKind, slot: UInt8 = 0, words: [UInt64]) throws(ImageError) {
    try put { (output, whenFull) throws(ImageError) in
      try output.put(kind, slot: slot, words: words, whenFull: whenFull)
    }
  }

  private func put(_ kind: FrameKind, slot: UInt8, text: String) throws(ImageError) {
    try put { (output, whenFull) throws(ImageError) in
      try output.put(kind, slot: slot, text: text, whenFull: whenFull)
    }
  }

  private func put(
    _ body: (inout FrameWriter, (Int) throws(ImageError) -> Void) throws(ImageError) -> Void
  ) throws(ImageError) {
    var lastCount = 0
    var lastProgress = MonotonicClock.now
    do throws(ImageError) {
      try body(&output) { (count) throws(ImageError) in
        let now = MonotonicClock.now
        if count != lastCount { (lastCount, lastProgress) = (count, now) }
        try hear()
        try checkOver()
        try checkPatience(since: lastProgress)
        try waitForChannel(forRoom: true)
      }
    } catch {
      failure = error
      // The receiver may have said why it went.
      if error.kind == .link { try hear() }
      throw error
    }
    lastSent = MonotonicClock.now
  }

  private func waitUntil(_ isDone: (ImageLink) -> Bool) throws(ImageError) {
    let began = MonotonicClock.now
    while true {
      try hear()
      if isDone(self) { return }
      try checkOver()
      try checkPatience(since: began)
      try waitForChannel(forRoom: false)
    }
  }

  private func waitForChannel(forRoom: Bool) throws(ImageError) {
    _ = try onFile(subject) { () throws(KernelError) in
      try channel.wait(
        forInput: channel.hasInput, forRoom: forRoom, milliseconds: FrameReader.sliceMilliseconds)
    }
  }

  /// A receiver that is at work says so; one that cannot answer is given all time, because who
  /// carries the pipe (ssh, say) watches over it.
  private func checkPatience(since progress: UInt64) throws(ImageError) {
    if patience.isCancelled() { throw .link(subject, "stopped by request") }
    let now = MonotonicClock.now
    if let stallNanoseconds, now &- progress >= stallNanoseconds {
      throw .link(subject, "too slow while the process stands still; raise --freeze-memory")
    }
    if channel.hasInput, now &- max(progress, lastHeard) >= patience.silenceNanoseconds {
      throw .link(
        subject, "the receiver was silent for \(patience.silenceNanoseconds / 1_000_000_000) s")
    }
  }

  private func checkOver() throws(ImageError) {
    if isOver { throw .link(subject, "the receiver is gone") }
  }

  private func hear() throws(ImageError) {
    guard channel.hasInput else { return }
    while true {
      switch try frames.takeWithoutWaiting() {
      case .none: return
      case .ended:
        // Its last word may have come just before: that decides.
        isOver = true
        return
      case .frame(let header, let payload):
        lastHeard = MonotonicClock.now
        try heard(header, payload)
      }
    }
  }

  private func heard(_ header: FrameHeader, _ payload: UnsafeRawBufferPointer) throws(ImageError) {
    switch header.kind {
    case .hello:
      guard let words = payload.words, words.count >= 2, words[0] == WireFormat.magic,
        UInt32(truncatingIfNeeded: words[1]) == WireFormat.version
      else { throw ImageError(.stream, file: subject, "the receiver speaks another language") }
      hasGreeted = true
    case .acknowledge:
      guard let words = payload.words, words.count == 1 else {
        throw ImageError(.stream, file: subject, "an acknowledgement that is none")
      }
      roundsAcknowledged = max(roundsAcknowledged, words[0])
      acknowledgements += 1
    case .refuse: throw .link(subject, "the receiver gave up: \(payload.printable)")
    case .alive: break
    default: throw ImageError(.stream, file: subject, "an answer that is none")
    }
  }

  private func beat() {
    mutex.withLockIfFree {
      guard failure == nil else { return }
      do throws(ImageError) {
        try hear()
        if MonotonicClock.now &- lastSent >= WireFormat.aliveNanoseconds {
          try put(.alive, words: [])
        }
      } catch { failure = error }
    }
  }
}

extension UnsafeRawBufferPointer {
  /// The payload as 64-bit numbers; nil if it is not made of them.
  var words: [UInt64]? {
    guard count % 8 == 0 else { return nil }
    return stride(from: 0, to: count, by: 8).map {
      UInt64(littleEndian: loadUnaligned(fromByteOffset: $0, as: UInt64.self))
    }
  }

  /// The begin of the payload as text that no terminal takes for a command.
  var printable: String {
    let text = String(decoding: prefix(512), as: UTF8.self)
    return String(
      String.UnicodeScalarView(
        text.unicodeScalars.filter { $0.value >= 0x20 && !(0x7f...0x9f).contains($0.value) }))
  }
}
