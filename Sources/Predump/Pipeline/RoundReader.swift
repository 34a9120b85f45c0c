internal import Images
internal import Kernel
internal import Synchronization

/// Reads the pages that a round planned, on whichever thread compresses them, and keeps account.
///
/// Read where they are compressed, pages are still in that core's cache.
final class RoundReader: Sendable {
  private let source: SharedProcessMemory
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
  }

  init(_ source: SharedProcessMemory) { self.source = source }

  /// Fills a chunk. For one thread at a time for each chunk.
  func load(_ chunk: Chunk) {
    var outcome = Outcome()
    var failure: KernelError?
    let began = ThisThread.processorNanoseconds
    do throws(KernelError) {
      try chunk.load(
        missing: { range in outcome.missing.append(range) },
        read: { (address, buffer) throws(KernelError) in
          let result = try source.memory.readPages(at: address, into: buffer)
          if case .pages(let count) = result {
            outcome.counters.add(pages: UInt64(count), nanoseconds: 0)
          }
          return result
        })
    } catch {
      chunk.reset()
      failure = error
    }
    outcome.counters.nanoseconds = ThisThread.processorNanoseconds - began
    state.withLock { state in
      state.outcome.counters.add(outcome.counters)
      state.outcome.missing += outcome.missing
      state.failure = state.failure ?? failure
    }
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
