internal import Images
internal import Kernel

/// The memory of a pipeline: what is not in somebody's hands.
///
/// Each encoder has one set of buffers in hand before it takes a chunk that needs them: the first
/// chunk in the order is never without. Those that are taken for chunks that come filled are fewer than
/// all by the number of encoders, so that every encoder can have one.
final class BufferPool: Sendable {
  /// What was used last comes first: it is in a processor's cache.
  private let buffers = BlockingQueue<ChunkBuffers>(givesLatest: true)
  private let permits = BlockingQueue<Void>()

  /// - Parameter count: more than `encoders`.
  init(_ compression: PageCompression, count: Int, encoders: Int) {
    precondition(count > encoders)
    for _ in 0..<count { buffers.put(ChunkBuffers(compression)) }
    for _ in encoders..<count { permits.put(()) }
  }

  /// For an encoder, waiting for one.
  func take() -> ChunkBuffers? { buffers.take() }

  /// Gives buffers to a chunk that is to be filled before it is handed to an encoder, waiting for some.
  func fill(_ chunk: Chunk) {
    guard !chunk.hasBuffers, permits.take() != nil, let buffers = buffers.take() else { return }
    chunk.isFilledEarly = true
    chunk.attach(buffers)
  }

  /// Takes the buffers of a written chunk.
  func takeBack(_ chunk: Chunk) {
    guard let buffers = chunk.detach() else { return }
    self.buffers.put(buffers)
    if chunk.isFilledEarly { permits.put(()) }
    chunk.isFilledEarly = false
  }
}
