package import Kernel

/// The receiving end of a stream of images.
package final class ImageReceiver {
  /// How a stream ended that ended well.
  package struct Result: Sendable, Equatable {
    /// Directory names of the complete rounds, oldest first.
    package var rounds: [String]
    /// How the session stands, by the sender's last word.
    package var outcome: SessionOutcome?
  }

  /// What this side says, in turn with a thread that shows that it lives.
  private final class Answers: @unchecked Sendable {
    // Sendable because the writer is only used with `mutex` held.
    private let mutex = ThreadMutex()
    private let channel: ByteChannel
    private var output: FrameWriter
    private let patience: LinkPatience

    init(_ channel: ByteChannel, _ patience: LinkPatience) {
      self.channel = channel
      self.patience = patience
      output = FrameWriter(channel)
    }

    func put(_ kind: FrameKind, words: [UInt64]) throws(ImageError) {
      try mutex.withLock { () throws(ImageError) in
        let deadline = MonotonicClock.now &+ patience.silenceNanoseconds
        try output.put(kind, words: words) { (_) throws(ImageError) in try wait(until: deadline) }
      }
    }

    func refuse(_ reason: String) {
      mutex.withLock {
        let deadline = MonotonicClock.now &+ 1_000_000_000
        try? output.put(.refuse, text: String(reason.prefix(400))) { (_) throws(ImageError) in
          try wait(until: deadline)
        }
      }
    }

    private func wait(until deadline: UInt64) throws(ImageError) {
      guard !patience.isCancelled(), MonotonicClock.now < deadline else {
        throw .link(channel.subject, "the sender does not hear")
      }
      _ = try onFile(channel.subject) { () throws(KernelError) in
        try channel.wait(
          forInput: false, forRoom: true, milliseconds: FrameReader.sliceMilliseconds)
      }
    }
  }

  private var channel: ByteChannel
  private let patience: LinkPatience
  private var answers: Answers
  private var frames: FrameReader
  private var session: IncomingSession
  private var heartbeat: Heartbeat?
  private var isHeard = false

  /// Receives from `channel` what `session` is to store.
  package init(
    from channel: ByteChannel, into session: consuming IncomingSession, patience: LinkPatience
  ) {
    self.channel = channel
    self.patience = patience
    self.session = session
    frames = FrameReader(channel)
    answers = Answers(channel, patience)
    channel.limitSilence(nanoseconds: patience.silenceNanoseconds)
  }

  /// Goes on over another connection, after the one before broke.
  package func resume(from channel: ByteChannel) {
    self.channel = channel
    frames = FrameReader(channel)
    answers = Answers(channel, patience)
    (isHeard, hasGreeted) = (false, false)
    channel.limitSilence(nanoseconds: patience.silenceNanoseconds)
  }

  /// Ends the connection: the sender is to notice as soon as may be.
  package func hangUp() { channel.hangUp() }

  /// Whether the other side of the connection is a memdump.
  package private(set) var hasGreeted = false

  /// Rounds that are complete.
  package var rounds: [String] { session.rounds }

  /// Receives until the sender is done.
  ///
  /// - Parameter onRound: called with the name of every round that is complete.
  /// - Throws: kind `.link` when the link broke, `.stream` when no memdump would send what came,
  ///   and whatever is wrong with a round or the disk. Complete rounds stay, the others do not.
  package func run(onRound: (String) -> Void) throws(ImageError) -> Result {
    do throws(ImageError) {
      try greet()
      while true {
        let (header, payload) = try next()
        switch try session.accept(header, payload) {
        case .nothing: break
        case .acknowledge(let rounds):
          if let name = session.rounds.last { onRound(name) }
          if isHeard { try answers.put(.acknowledge, words: [UInt64(rounds)]) }
        case .end(let rounds):
          heartbeat = nil
          // Everything is stored: whether the sender hears of it changes nothing here.
          if isHeard { try? answers.put(.acknowledge, words: [UInt64(rounds)]) }
          return Result(rounds: session.rounds, outcome: session.outcome)
        }
      }
    } catch {
      heartbeat = nil
      session.abandonRound()
      if isHeard { answers.refuse("\(error)") }
      throw error
    }
  }

  private func next() throws(ImageError) -> (FrameHeader, UnsafeRawBufferPointer) {
    switch try frames.take(patience) {
    case .frame(let header, let payload): return (header, payload)
    case .none, .ended:
      throw .link(channel.subject, "the stream ended before the session did")
    }
  }

  private func greet() throws(ImageError) {
    let (header, payload) = try next()
    guard header.kind == .hello, let words = payload.words, words.count >= 2,
      words[0] == WireFormat.magic
    else { throw ImageError(.stream, file: channel.subject, "this is no stream of images") }
    let version = UInt32(truncatingIfNeeded: words[1])
    isHeard =
      channel.hasOutput && UInt32(truncatingIfNeeded: words[1] >> 32) & WireFormat.wantsAnswers != 0
    guard version == WireFormat.version else {
      throw ImageError(
        .stream, file: channel.subject,
        "the stream is of version \(version), and this memdump knows \(WireFormat.version)")
    }
    guard words.count >= 3 else {
      throw ImageError(.stream, file: channel.subject, "the stream's greeting is too short")
    }
    hasGreeted = true
    guard isHeard else { return }
    try answers.put(
      .hello,
      words: [
        WireFormat.magic, UInt64(WireFormat.version), patience.silenceNanoseconds / 1_000_000,
      ] + session.stored.words)
    let theirs = min(words[2], 1 << 40) * 1_000_000
    let interval = WireFormat.aliveNanoseconds(silence: min(theirs, patience.silenceNanoseconds))
    let answers = answers
    heartbeat = try onFile(channel.subject) { () throws(KernelError) in
      try Heartbeat(nanoseconds: interval) {
        try? answers.put(.alive, words: [])
      }
    }
  }
}
