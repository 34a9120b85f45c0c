internal import Images
internal import Kernel
internal import Synchronization

/// Plan → readers and compressors → writer, with a fixed set of buffers going round between them.
///
///     takeChunk()            encoders (one a core)         writer (one, in order)
///     engine thread  ──────▶  RoundReader.load()  ──────▶  RoundWriter.append()
///          ▲                  Chunk.encode()                      │
///          └────────────────────── free chunks ◀──────────────────┘
///
/// The number of chunks is the memory limit. Chunks are cut by the engine thread alone, so the
/// images are the same whatever the number of encoders.
///
/// Used by one engine thread; not Sendable.
final class ChunkPipeline {
  private let free = BlockingQueue<Chunk>(givesLatest: true)
  private let filled = BlockingQueue<Work>()
  private let encoded = BlockingQueue<Message>()
  private let results = BlockingQueue<Result<WriterBox, ImageError>>()
  private let encoderEnds = BlockingQueue<Void>()
  private let hasFailed = FailureFlag()
  /// Encoders that were started, for the end to wait for.
  private var encoderCount = 0
  private var nextSequence = 0

  /// A chunk for the encoders, and who fills it.
  private struct Work: Sendable {
    let chunk: Chunk
    let reader: RoundReader?
  }

  /// What the writer is told, each with its place in the order.
  private enum Message: Sendable {
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
  private final class WriterBox: @unchecked Sendable {
    var writer: RoundWriter?
    init(_ writer: consuming RoundWriter) { self.writer = consume writer }
  }

  private final class FailureFlag: Sendable {
    let value = Atomic<Bool>(false)
  }

  /// Starts the threads and allocates the chunks.
  ///
  /// - Parameters:
  ///   - yields: whether compression in live rounds leaves the processor to whoever else wants it.
  ///   - memoryBytes: what all chunks take at most, but never less than `leastMemory`; nil for what
  ///     keeps the encoders busy as long as the writer is not slower than they are.
  init(
    compression: PageCompression, encoders: Int, yields: Bool, memoryBytes: UInt64? = nil
  ) throws(KernelError) {
    let wanted = max(1, encoders)
    // Each encoder has one in hand and one waiting; the reader and the writer have one each.
    let count = memoryBytes.map { Int(clamping: $0 / Chunk.byteCount(compression)) }
    for _ in 0..<max(Self.leastChunks(encoders: wanted), count ?? 2 * wanted + 2) {
      free.put(Chunk(compression: compression))
    }
    let (free, filled, encoded) = (free, filled, encoded)
    let (results, encoderEnds, hasFailed) = (results, encoderEnds, hasFailed)
    for _ in 0..<wanted {
      _ = try OSThread(name: "memdump-encode") {
        // Work on memory, and on files that are open.
        try? ThisThread.keepCapabilities(yields ? .raisePriority : [])
        var yielding = YieldingWork(wanted: yields)
        while let work = filled.take() {
          work.reader?.load(work.chunk)
          // A chunk that comes filled may be the frozen round's, for which the process waits.
          if work.reader == nil {
            work.chunk.encode()
          } else {
            yielding.run { work.chunk.encode() }
          }
          encoded.put(.chunk(work.chunk))
        }
        encoderEnds.put(())
      }
      encoderCount += 1
    }
    _ = try OSThread(name: "memdump-write") {
      try? ThisThread.keepCapabilities(.files)
      var writer = OrderedWriter(free: free, results: results, hasFailed: hasFailed)
      while let message = encoded.take() { writer.accept(message) }
    }
  }

  /// Each encoder, the reader and the writer have one in hand.
  private static func leastChunks(encoders: Int) -> Int { encoders + 2 }

  /// The least memory with which no encoder waits for a buffer of another one (bytes).
  static func leastMemory(compression: PageCompression, encoders: Int) -> UInt64 {
    UInt64(leastChunks(encoders: max(1, encoders))) * Chunk.byteCount(compression)
  }

  deinit {
    filled.close()
    for _ in 0..<encoderCount { _ = encoderEnds.take() }
    encoded.close()
  }

  /// Starts a round.
  func begin(_ writer: consuming RoundWriter) {
    encoded.put(.begin(takeSequence(), WriterBox(writer)))
  }

  /// An empty chunk, waiting for one.
  ///
  /// - Throws: what the writer failed with, once it has failed.
  func takeChunk() throws(PipelineFailed) -> Chunk {
    if hasFailed.value.load(ordering: .acquiring) { throw PipelineFailed() }
    guard let chunk = free.take() else { throw PipelineFailed() }
    chunk.reset()
    return chunk
  }

  /// Sends a chunk on its way; `reader`, if there is one, fills it first.
  func submit(_ chunk: Chunk, _ reader: RoundReader?) {
    chunk.sequence = takeSequence()
    filled.put(Work(chunk: chunk, reader: reader))
  }

  /// What follows belongs to a shared memory object.
  func beginSharedObject(_ id: UInt64) {
    encoded.put(.stream(takeSequence(), .sharedObject(id: id)))
  }

  /// What follows belongs to process `pid`. The round's target comes first, without being asked for.
  func beginProcess(_ pid: Int32) { encoded.put(.stream(takeSequence(), .process(pid: pid))) }

  /// Waits until everything is written, and gives the writer back for its commit.
  ///
  /// - Throws: what the writer failed with; the round's directory is removed then.
  func end() throws(ImageError) -> RoundWriter? {
    encoded.put(.end(takeSequence()))
    defer { hasFailed.value.store(false, ordering: .releasing) }
    guard let box = try results.take()?.get() else { return nil }
    return box.writer.take()
  }

  private func takeSequence() -> Int {
    defer { nextSequence += 1 }
    return nextSequence
  }

  /// The writer thread's state: puts messages back in order and carries them out.
  private struct OrderedWriter {
    let free: BlockingQueue<Chunk>
    let results: BlockingQueue<Result<WriterBox, ImageError>>
    let hasFailed: FailureFlag
    private var early: [Int: Message] = [:]
    private var next = 0
    private var box: WriterBox?
    private var failure: ImageError?

    init(
      free: BlockingQueue<Chunk>, results: BlockingQueue<Result<WriterBox, ImageError>>,
      hasFailed: FailureFlag
    ) {
      self.free = free
      self.results = results
      self.hasFailed = hasFailed
    }

    mutating func accept(_ message: Message) {
      early[message.sequence] = message
      while let message = early.removeValue(forKey: next) {
        next += 1
        carryOut(message)
      }
    }

    private mutating func carryOut(_ message: Message) {
      switch message {
      case .begin(_, let box):
        self.box = box
        failure = nil
      case .stream(_, let stream):
        write { (writer) throws(ImageError) in try writer.begin(stream) }
      case .chunk(let chunk):
        write { (writer) throws(ImageError) in try writer.append(chunk) }
        free.put(chunk)
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

    private mutating func write(_ body: (inout RoundWriter) throws(ImageError) -> Void) {
      guard let box, var writer = box.writer.take() else { return }
      do throws(ImageError) {
        try body(&writer)
        box.writer = consume writer
      } catch {
        // The writer is dropped, and with it the directory; the chunks keep going round.
        failure = error
        hasFailed.value.store(true, ordering: .releasing)
      }
    }
  }
}

/// The writer has failed; `ChunkPipeline.end()` tells why.
struct PipelineFailed: Error {}
