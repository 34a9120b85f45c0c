internal import Images
internal import Kernel
internal import Synchronization

/// Carries out what a round's threads hand in, in order.
///
/// A chunk is written by the thread that has compressed it, if its turn has come: the bytes are in that
/// processor's cache, and nobody has to be woken. All else is the writer thread's, also what has to
/// wait for a disk or a link: meanwhile others are compressed.
final class OrderedOutput: @unchecked Sendable {
  // Sendable because `box` and `failure` are reached by the thread alone that has made `isBusy` true, or
  // was handed what comes next by it, and the locks order that.

  /// What is to be done, each with its place in the order.
  enum Message: Sendable {
    case begin(Int, WriterBox)
    case stream(Int, ImageStream)
    case chunk(Chunk)
    case end(Int)

    var sequence: Int {
      switch self {
      case .begin(let sequence, _), .stream(let sequence, _), .end(let sequence): sequence
      case .chunk(let chunk): chunk.sequence
      }
    }
  }

  /// Carries a writer between threads. Whoever took the message that holds it is its only user.
  final class WriterBox: @unchecked Sendable {
    var writer: RoundWriter?
    init(_ writer: consuming RoundWriter) { self.writer = consume writer }
  }

  private struct Order {
    var early: [Int: Message] = [:]
    var next = 0
    var isBusy = false

    /// Takes what comes next, if it is there.
    mutating func take() -> Message? {
      let message = early.removeValue(forKey: next)
      isBusy = message != nil
      if isBusy { next += 1 }
      return message
    }
  }

  private let order = Mutex(Order())
  /// What the writer thread is to go on with.
  private let handedOver = BlockingQueue<Message>()
  private let results = BlockingQueue<Result<WriterBox, ImageError>>()
  private let hasFailed = Atomic<Bool>(false)
  private let buffers: BufferPool
  private let free: BlockingQueue<Chunk>
  private var box: WriterBox?
  private var failure: ImageError?
  /// Whether the writer waits for a disk or a link, as far as was seen in this round.
  private var isSlow = false
  /// How often writing has waited for somebody, in this round.
  private var waits: UInt64 = 0
  /// So often may be chance: a lock, say.
  private static let waitsByChance = 8

  /// - Parameters:
  ///   - buffers: where those of written chunks go.
  ///   - free: where written chunks go.
  init(buffers: BufferPool, free: BlockingQueue<Chunk>) {
    self.buffers = buffers
    self.free = free
  }

  /// Whether the writer has failed, in this round.
  var isFailed: Bool { hasFailed.load(ordering: .acquiring) }

  /// Takes a message, and leaves it to the writer thread.
  func handIn(_ message: Message) {
    if let first = take(message) { handedOver.put(first) }
  }

  /// Takes a chunk that this thread has compressed, and writes it and what comes next, or leaves that
  /// to whoever is writing.
  func write(_ chunk: Chunk) {
    var next = take(.chunk(chunk))
    while let message = next {
      guard case .chunk(let chunk) = message, !isSlow else { return handedOver.put(message) }
      carryOut(chunk)
      next = order.withLock { $0.take() }
    }
  }

  /// The writer thread's life.
  func run() {
    while var message = handedOver.take() {
      while true {
        carryOut(message)
        guard let next = order.withLock({ $0.take() }) else { break }
        message = next
      }
    }
  }

  /// Lets the writer thread end.
  func close() { handedOver.close() }

  /// Waits for the end of the round, and gives the writer back.
  ///
  /// - Throws: what it failed with; the round's directory is removed then.
  func end() throws(ImageError) -> RoundWriter? {
    defer { hasFailed.store(false, ordering: .releasing) }
    guard let box = try results.take()?.get() else { return nil }
    return box.writer.take()
  }

  private func take(_ message: Message) -> Message? {
    order.withLock { order in
      order.early[message.sequence] = message
      return order.isBusy ? nil : order.take()
    }
  }

  private func carryOut(_ message: Message) {
    switch message {
    case .begin(_, let box):
      self.box = box
      failure = nil
      waits = 0
      isSlow = !(box.writer?.isLocal ?? true)
    case .stream(_, let stream):
      write { (writer) throws(ImageError) in try writer.begin(stream) }
    case .chunk(let chunk): carryOut(chunk)
    case .end:
      let box = self.box
      self.box = nil
      if let failure {
        results.put(.failure(failure))
      } else if let box {
        results.put(.success(box))
      }
    }
  }

  private func carryOut(_ chunk: Chunk) {
    let before = ThisThread.waitCount
    write { (writer) throws(ImageError) in try writer.append(chunk) }
    waits += ThisThread.waitCount - before
    if waits > Self.waitsByChance { isSlow = true }
    buffers.takeBack(chunk)
    free.put(chunk)
  }

  private func write(_ body: (inout RoundWriter) throws(ImageError) -> Void) {
    guard let box, var writer = box.writer.take() else { return }
    do throws(ImageError) {
      try body(&writer)
      box.writer = consume writer
    } catch {
      // The writer is dropped, and with it the directory; the chunks keep going round.
      failure = error
      hasFailed.store(true, ordering: .releasing)
    }
  }
}
