internal import Kernel

/// Reads a part of what a freeze would copy, in the way in which it would: what that costs depends on
/// caches, on how busy the processors are and on how fast they wake, which no earlier read tells.
///
/// For the engine's thread alone; not Sendable.
final class CopyRehearsal {
  /// Reads at most: enough to measure, too few to warm the caches for the freeze.
  private static let mostReads = 256
  /// With fewer there is little to predict.
  private static let leastReads = 64

  private let spool: AnonymousMemory

  init() throws(KernelError) {
    spool = try AnonymousMemory(byteCount: Self.mostReads * Int(pageBytes))
    spool.populate(first: spool.byteCount)
  }

  /// Reads a page of each of some runs that are spread over all of `pending`.
  ///
  /// - Returns: pages, and how long it took (ns); nil where there is too little to read, or it cannot
  ///   be read any more.
  func run(_ pending: PopulatedSet, from memory: SharedProcessMemory, _ crew: ThreadCrew)
    -> (pages: UInt64, nanoseconds: UInt64)?
  {
    guard pending.runs.count >= Self.leastReads else { return nil }
    let count = min(pending.runs.count, Self.mostReads)
    let pieces = (0..<count).map { index in
      FrozenReads.Piece(
        range: PageRange(
          start: pending.runs[index * pending.runs.count / count].start, pageCount: 1),
        offset: index * Int(pageBytes))
    }
    let reads = FrozenReads(pieces, from: memory, into: spool.bytes(at: 0, count: spool.byteCount))
    // As in a freeze.
    let preferred = PreferredThread()
    let began = MonotonicClock.now
    crew.run { reads.work() }
    let nanoseconds = MonotonicClock.now - began
    _ = consume preferred
    guard let missing = try? reads.finish(), missing.isEmpty else { return nil }
    return (UInt64(count), nanoseconds)
  }
}
