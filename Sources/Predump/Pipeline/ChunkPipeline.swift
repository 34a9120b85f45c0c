internal import Images
internal import Kernel

/// Plan → read, compress and write, with a fixed set of buffers going round.
///
///     takeChunk()            encoders (one a core)         in order, by the encoder if it is its turn
///     engine thread  ──────▶  RoundReader.load()  ──────▶  RoundWriter.append()
///          ▲                  Chunk.encode()                      │
///          └────────────────────── free chunks ◀──────────────────┘
///
/// The number of buffers is the memory limit. Chunks are cut by the engine thread alone, so the
/// images are the same whatever the number of encoders.
///
/// Used by one engine thread; not Sendable.
final class ChunkPipeline {
  private let free = BlockingQueue<Chunk>(givesLatest: true)
  private let filled = BlockingQueue<Work>()
  private let encoderEnds = BlockingQueue<Void>()
  private let buffers: BufferPool
  private let output: OrderedOutput
  /// Encoders that were started, for the end to wait for.
  private var encoderCount = 0
  private var nextSequence = 0

  /// A chunk for the encoders, and who fills it.
  private struct Work: Sendable {
    let chunk: Chunk
    let reader: RoundReader?
  }

  /// Starts the threads and allocates the buffers.
  ///
  /// - Parameters:
  ///   - yields: whether compression in live rounds leaves the processor to whoever else wants it.
  ///   - memoryBytes: what all buffers take at most, but never less than `leastMemory`; nil for what
  ///     keeps the encoders busy as long as the writer is not slower than they are.
  init(
    compression: PageCompression, encoders: Int, yields: Bool, memoryBytes: UInt64? = nil
  ) throws(KernelError) {
    let wanted = max(1, encoders)
    // Each encoder has one in hand and one that waits for its turn.
    let wish = memoryBytes.map { Int(clamping: $0 / ChunkBuffers.byteCount(compression)) }
    let count = max(Self.leastBuffers(encoders: wanted), wish ?? 2 * wanted + 2)
    buffers = BufferPool(compression, count: count, encoders: wanted)
    output = OrderedOutput(buffers: buffers, free: free)
    // One is planned while all buffers are in use.
    for _ in 0...count { free.put(Chunk(compression: compression, buffers: nil)) }
    let (filled, buffers, output, encoderEnds) = (filled, buffers, output, encoderEnds)
    for _ in 0..<wanted {
      _ = try OSThread(name: "memdump-encode") {
        // Work on memory, and on files that are open.
        try? ThisThread.keepCapabilities(yields ? .raisePriority : [])
        var yielding = YieldingWork(wanted: yields)
        var spare = buffers.take()
        while let work = filled.take() {
          if !work.chunk.hasBuffers, let inHand = spare.take() { work.chunk.attach(inHand) }
          work.reader?.load(work.chunk)
          // A chunk that comes filled may be the frozen round's, for which the process waits.
          if work.chunk.isFilledEarly {
            work.chunk.encode()
          } else {
            yielding.run { work.chunk.encode() }
          }
          output.write(work.chunk)
          // Mostly the same again, which are in this processor's cache.
          spare = spare ?? buffers.take()
        }
        encoderEnds.put(())
      }
      encoderCount += 1
    }
    _ = try OSThread(name: "memdump-write") {
      try? ThisThread.keepCapabilities(.files)
      output.run()
    }
  }

  /// Each encoder has one in hand; two wait for their turn, or are being filled.
  private static func leastBuffers(encoders: Int) -> Int { encoders + 2 }

  /// The least memory with which no encoder waits for a buffer of another one (bytes).
  static func leastMemory(compression: PageCompression, encoders: Int) -> UInt64 {
    UInt64(leastBuffers(encoders: max(1, encoders))) * ChunkBuffers.byteCount(compression)
  }

  deinit {
    filled.close()
    for _ in 0..<encoderCount { _ = encoderEnds.take() }
    output.close()
  }

  /// Starts a round.
  func begin(_ writer: consuming RoundWriter) {
    output.handIn(.begin(takeSequence(), OrderedOutput.WriterBox(writer)))
  }

  /// An empty chunk, waiting for one.
  ///
  /// - Throws: what the writer failed with, once it has failed.
  func takeChunk() throws(PipelineFailed) -> Chunk {
    if output.isFailed { throw PipelineFailed() }
    guard let chunk = free.take() else { throw PipelineFailed() }
    chunk.reset()
    return chunk
  }

  /// Makes room in a chunk for pages that are not planned but put in at once, waiting for it.
  func makeRoom(in chunk: Chunk) { buffers.fill(chunk) }

  /// Sends a chunk on its way; `reader`, if there is one, fills it first.
  func submit(_ chunk: Chunk, _ reader: RoundReader?) {
    chunk.sequence = takeSequence()
    filled.put(Work(chunk: chunk, reader: reader))
  }

  /// What follows belongs to a shared memory object.
  func beginSharedObject(_ id: UInt64) {
    output.handIn(.stream(takeSequence(), .sharedObject(id: id)))
  }

  /// What follows belongs to process `pid`. The round's target comes first, without being asked for.
  func beginProcess(_ pid: Int32) {
    output.handIn(.stream(takeSequence(), .process(pid: pid)))
  }

  /// Waits until everything is written, and gives the writer back for its commit.
  ///
  /// - Throws: what the writer failed with; the round's directory is removed then.
  func end() throws(ImageError) -> RoundWriter? {
    output.handIn(.end(takeSequence()))
    return try output.end()
  }

  private func takeSequence() -> Int {
    defer { nextSequence += 1 }
    return nextSequence
  }
}

/// The writer has failed; `ChunkPipeline.end()` tells why.
struct PipelineFailed: Error {}
