package import Kernel
internal import SystemPackage

/// The sending end of a stream of images: puts a session's files on a channel, round by round.
///
/// After an error the link is of no more use, and says so. Thread-safe; a thread of its own shows
/// the receiver that this side lives while there is nothing to send.
package final class ImageLink: @unchecked Sendable {
  // Sendable because everything that changes is only touched with `mutex` held.
  private let mutex = ThreadMutex()
  private var channel: ByteChannel
  private let redial: (@Sendable () throws(ImageError) -> ByteChannel)?
  private var frames: FrameReader
  private var output: FrameWriter
  private var patience: LinkPatience
  private var stallNanoseconds: UInt64?
  private var lastHeard = MonotonicClock.now
  private var lastSent = MonotonicClock.now
  private var hasGreeted = false
  /// Whether the receiver will say no more.
  private var isOver = false
  /// Answers that came.
  private var acknowledgements = 0
  private var progress = LinkProgress()
  /// How often to show that this side lives when there is nothing else to say (ns).
  private var aliveNanoseconds: UInt64
  private var failure: ImageError?
  private var slots = [Bool](repeating: false, count: WireFormat.slotLimit)
  private var isInRound = false
  /// Every round that was sent, oldest first: the last is the parent of what comes next.
  private var sent: [ParentRound] = []
  /// What the receiver's greeting says that it has.
  private var stored: StoredRounds?
  private var heartbeat: Heartbeat?

  /// How people call the other end.
  package let subject: String
  /// Whether the receiver answers: over a pipe it cannot.
  package let hearsAnswers: Bool

  /// Greets the receiver, and waits for its greeting if it can answer.
  ///
  /// - Parameter redial: makes another connection to the receiver, for `reconnect`.
  package init(
    _ channel: ByteChannel, patience: LinkPatience,
    redial: (@Sendable () throws(ImageError) -> ByteChannel)? = nil
  ) throws(ImageError) {
    self.channel = channel
    self.redial = redial
    subject = channel.subject
    hearsAnswers = channel.hasInput
    self.patience = patience
    frames = FrameReader(channel)
    output = FrameWriter(channel)
    channel.limitSilence(nanoseconds: patience.silenceNanoseconds)
    aliveNanoseconds = WireFormat.aliveNanoseconds(silence: patience.silenceNanoseconds)
    try locked { (link) throws(ImageError) in try link.greet() }
    heartbeat = try onFile(channel.subject) { () throws(KernelError) in
      try Heartbeat(nanoseconds: aliveNanoseconds) { [weak self] in self?.beat() }
    }
  }

  /// Makes the connection anew after it broke, without waiting for long.
  ///
  /// - Returns: how many of the rounds that were sent the receiver has. What was sent after them is
  ///   lost, and the next round follows them.
  package func reconnect() throws(ImageError) -> Int {
    guard let redial else { throw ImageError(.misuse, file: subject, "nobody can connect again") }
    // The receiver is to notice as soon as may be.
    mutex.withLock { self.channel.hangUp() }
    let channel = try redial()
    return try mutex.withLock { () throws(ImageError) -> Int in
      self.channel = channel
      frames = FrameReader(channel)
      output = FrameWriter(channel)
      channel.limitSilence(nanoseconds: patience.silenceNanoseconds)
      (failure, stallNanoseconds, stored) = (nil, nil, nil)
      (hasGreeted, isOver, isInRound) = (false, false, false)
      slots = [Bool](repeating: false, count: WireFormat.slotLimit)
      lastHeard = MonotonicClock.now
      do throws(ImageError) { try greet() } catch {
        failure = error
        throw error
      }
      let count = stored?.count ?? 0
      sent.removeSubrange(count...)
      progress = LinkProgress(resumingAfter: UInt64(count))
      return count
    }
  }

  /// How long nothing may move while a process stands still for it (ns); nil for the usual patience.
  package func limitStall(nanoseconds: UInt64?) {
    mutex.withLock { stallNanoseconds = nanoseconds }
  }

  /// Whether the link is known to be of no more use, which the next call will say.
  package var isBroken: Bool { mutex.withLock { failure != nil } }

  /// Complete rounds that the receiver is known to have.
  package var roundsAcknowledged: UInt64 { mutex.withLock { progress.roundsAcknowledged } }

  /// Rounds that were acknowledged since this was asked last, and how long each was under way (ns): from
  /// its begin, or the acknowledgement of the round before it, to its own.
  package func takeAcknowledgements() -> [(round: Int, nanoseconds: UInt64)] {
    mutex.withLock { progress.takeAcknowledgements() }.map { (Int($0.round), $0.nanoseconds) }
  }

  /// Whether the receiver has every round that was sent, as far as it can tell.
  package var isSettled: Bool {
    mutex.withLock { !channel.hasInput || progress.isSettled }
  }

  /// Waits until the receiver has every round that was sent, if it can answer.
  package func settle() throws(ImageError) {
    try locked { (link) throws(ImageError) in
      if link.channel.hasInput { try link.waitUntil { $0.progress.isSettled } }
    }
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
      link.progress.begin(now: MonotonicClock.now)
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

  /// The round is complete on this side: the receiver acknowledges it when it has checked and stored
  /// it, and meanwhile the next one may begin.
  func commitRound(_ parent: ParentRound) throws(ImageError) {
    try locked { (link) throws(ImageError) in
      try link.put(.commitRound, words: [])
      link.isInRound = false
      link.progress.commit(round: RoundName(parent.name)?.number ?? 0)
      link.sent.append(parent)
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
      // One is for the end, and no other may be taken for it.
      if link.channel.hasInput { try link.waitUntil { $0.progress.isSettled } }
      let before = link.acknowledgements
      try link.put(.end, words: [])
      if link.channel.hasInput { try link.waitUntil { $0.acknowledgements > before } }
      link.failure = .link(link.subject, "the stream has ended")
    }
  }

  /// What was sent last; nil before the first round.
  package var parent: ParentRound? { mutex.withLock { sent.last } }

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
      // However long the receiver takes to check: as long as it says that it lives.
      try checkPatience(since: began, mayStall: true)
      try waitForChannel(forRoom: false)
    }
  }

  private func greet() throws(ImageError) {
    let abilities = channel.hasInput ? WireFormat.wantsAnswers : 0
    try put(
      .hello,
      words: [
        WireFormat.magic, UInt64(WireFormat.version) | UInt64(abilities) << 32,
        patience.silenceNanoseconds / 1_000_000,
      ])
    guard channel.hasInput else { return }
    try awaitGreeting()
    guard let stored, stored.count > 0 else { return }
    if sent.isEmpty {
      // Whoever tries again finds the same.
      throw ImageError(
        .session, file: subject, "the receiver holds rounds of another dump")
    }
    guard stored.count <= sent.count, stored.first == sent[0].record,
      stored.last == sent[stored.count - 1].record
    else {
      throw .link(
        subject, "the receiver holds \(stored.count) rounds that are not of this dump")
    }
  }

  /// What is no answer at all comes from somebody else, and says nothing of images.
  private func awaitGreeting() throws(ImageError) {
    do throws(ImageError) { try waitUntil { $0.hasGreeted } } catch {
      guard error.kind == .stream else { throw error }
      throw .link(
        subject, "no memdump receive answers, or one of another version (\(error.message))")
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
  private func checkPatience(since progress: UInt64, mayStall: Bool = false) throws(ImageError) {
    if patience.isCancelled() { throw .link(subject, "stopped by request") }
    let now = MonotonicClock.now
    if !mayStall, let stallNanoseconds, now &- progress >= stallNanoseconds {
      throw .link(subject, "too slow while the process stands still; raise --freeze-memory")
    }
    try checkSilence(since: progress, now)
  }

  private func checkSilence(since progress: UInt64, _ now: UInt64) throws(ImageError) {
    if channel.hasInput, now &- min(now, max(progress, lastHeard)) >= patience.silenceNanoseconds {
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
      guard let words = payload.words, words.count >= 8, words[0] == WireFormat.magic,
        UInt32(truncatingIfNeeded: words[1]) == WireFormat.version
      else { throw ImageError(.stream, file: subject, "the receiver speaks another language") }
      hasGreeted = true
      stored = StoredRounds(words: Array(words[3..<8]))
      aliveNanoseconds = min(
        aliveNanoseconds,
        WireFormat.aliveNanoseconds(silence: min(words[2], 1 << 40) * 1_000_000))
    case .acknowledge:
      guard let words = payload.words, words.count == 1, words[0] <= progress.roundsSent else {
        throw ImageError(.stream, file: subject, "an acknowledgement that is none")
      }
      progress.acknowledge(rounds: words[0], now: lastHeard)
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
        try checkOver()
        let now = MonotonicClock.now
        try checkSilence(since: 0, now)
        if now &- lastSent >= aliveNanoseconds { try put(.alive, words: []) }
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
