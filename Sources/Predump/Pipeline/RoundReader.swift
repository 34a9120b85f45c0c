internal import Images
internal import Kernel
internal import Synchronization

/// Reads the pages that a round planned, on whichever thread compresses them, and keeps account. Pages
/// with the very bytes that the parent holds, which were written all the same, are taken from it.
///
/// Read where they are compressed, pages are still in that core's cache.
final class RoundReader: Sendable {
  private let source: Source?
  private let held: PopulatedSet
  private let digests: PageDigests
  /// Whether nothing that is read needs to be noted.
  private let isFirst: Bool
  private let state = Mutex(State())

  private struct State {
    var outcome = Outcome()
    var failure: KernelError?
  }

  /// What reading came to.
  struct Outcome {
    var counters = CopyCounters()
    /// Pages that could not be read: unmapped since the scan, guard pages, beyond a file's end.
    /// They are in no image; the next round meets them as new. In any order.
    var missing: [PageRange] = []
    /// Pages that were taken from the parent after all. In any order.
    var unchanged: [PageRange] = []

    var unchangedCount: UInt64 { unchanged.reduce(0) { $0 + $1.pageCount } }
  }

  /// Where pages are read.
  enum Source: Sendable {
    case memory(SharedProcessMemory)
    case object(OpenObject)

    func readPages(at address: UInt64, into buffer: UnsafeMutableRawBufferPointer)
      throws(KernelError) -> ProcessMemory.ReadResult
    {
      switch self {
      case .memory(let shared): try shared.memory.readPages(at: address, into: buffer)
      case .object(let object):
        try SharedObjects.readPages(of: object.file, at: address, into: buffer)
      }
    }
  }

  /// - Parameters:
  ///   - source: nil if the chunks come with their pages.
  ///   - history: of the stream that the pages belong to.
  init(_ source: Source?, _ history: StreamHistory) {
    self.source = source
    held = history.held
    digests = history.digests
    isFirst = history.held.runs.isEmpty && !history.wasRolledBack
  }

  /// Fills a chunk. For one thread at a time for each chunk.
  func load(_ chunk: Chunk) {
    var outcome = Outcome()
    var failure: KernelError?
    let began = ThisThread.processorNanoseconds
    do throws(KernelError) {
      if let source {
        try chunk.load(
          missing: { range in outcome.missing.append(range) },
          read: { (address, buffer) throws(KernelError) in
            let result = try source.readPages(at: address, into: buffer)
            if case .pages(let count) = result {
              outcome.counters.add(pages: UInt64(count), nanoseconds: 0)
            }
            return result
          })
      }
    } catch {
      chunk.reset()
      failure = error
    }
    outcome.counters.nanoseconds = ThisThread.processorNanoseconds - began
    outcome.unchanged = replaceUnchanged(chunk)
    state.withLock { state in
      state.outcome.counters.add(outcome.counters)
      state.outcome.missing += outcome.missing
      state.outcome.unchanged += outcome.unchanged
      state.failure = state.failure ?? failure
    }
  }

  private func replaceUnchanged(_ chunk: Chunk) -> [PageRange] {
    // A first round is not noted: digesting all of the process would cost it more than the second
    // round saves. What is written again and again is met there.
    if case .memory = source, isFirst { return [] }
    var unchanged = PopulatedSet()
    var cursor = PopulatedSet.Cursor(held, from: chunk.start ?? 0)
    chunk.replaceUnchanged(
      // Noted in any case: what is stored now is what the next round compares with.
      { address, page in digests.note(address, page) && cursor.holds(address) },
      unchanged: { unchanged.append(PageRange(start: $0, pageCount: 1)) })
    return unchanged.runs
  }

  /// Bytes that were read so far, and the first read that failed.
  var progress: (pages: UInt64, failure: KernelError?) {
    state.withLock { ($0.outcome.counters.pages, $0.failure) }
  }

  /// What all reads came to, once the pipeline has come to its end.
  ///
  /// - Throws: the first read that failed for another reason than a page that is not there.
  func finish() throws(KernelError) -> Outcome {
    let state = state.withLock { $0 }
    if let failure = state.failure { throw failure }
    return state.outcome
  }
}
