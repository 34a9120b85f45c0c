internal import Images
internal import Kernel

/// Fills chunks with what a round holds, and counts.
struct RoundCopier {
  private let pipeline: ChunkPipeline
  private let cancellation: Cancellation?
  private var throttle: Throttle
  private var debt: ScanDebt?
  private var chunk: Chunk?
  // What the parent holds of the current stream.
  private var held: PopulatedSet.Cursor
  private var digests: PageDigests
  /// What the round holds of the current stream so far.
  private(set) var populated = PopulatedSet()
  private(set) var counters = CopyCounters()

  /// - Parameters:
  ///   - history: of the stream that comes first.
  ///   - cancellation: nil where stopping half-way would be worse than going on.
  ///   - debt: of the scans whose pages are stored.
  ///   - bytesPerSecondLimit: what is read at most; 0 is without limit.
  init(
    pipeline: ChunkPipeline, history: StreamHistory, cancellation: Cancellation?,
    debt: ScanDebt?, bytesPerSecondLimit: UInt64 = 0
  ) {
    held = PopulatedSet.Cursor(history.held)
    digests = history.digests
    self.pipeline = pipeline
    self.debt = debt
    self.cancellation = cancellation
    throttle = Throttle(bytesPerSecond: bytesPerSecondLimit)
  }

  /// What follows belongs to a shared memory object.
  mutating func begin(_ id: UInt64, _ history: StreamHistory) {
    flush()
    pipeline.beginSharedObject(id)
    held = PopulatedSet.Cursor(history.held)
    digests = history.digests
    populated = PopulatedSet()
    // Offsets in an object are no addresses of the process's.
    debt = nil
  }

  /// Takes a run from the parent.
  mutating func takeFromParent(_ range: PageRange) throws(CopyFailure) {
    while !(try currentChunk().appendParent(range)) { flush() }
    populated.append(range)
  }

  /// Takes a run, that was read and is unchanged, from the parent.
  mutating func takeCompared(_ range: PageRange) throws(CopyFailure) {
    if cancellation?.isCancelled ?? false { throw .interrupted }
    try takeFromParent(range)
    throttle.spend(range.byteCount, cancellation)
  }

  /// Stores a run, whose bytes `read` fetches piece by piece. Pages with the very bytes that the
  /// parent holds, which were written all the same, are taken from it.
  ///
  /// A page that cannot be read (unmapped since the scan, a guard page, beyond a file's end) is
  /// left out, as a hole; the next round meets it as new.
  ///
  /// - Parameter read: as `ProcessMemory.readPages`.
  mutating func store(
    _ range: PageRange, flags: PagemapFlags,
    read: (UInt64, UnsafeMutableRawBufferPointer) throws(KernelError) -> ProcessMemory.ReadResult
  ) throws(CopyFailure) -> StoredPages {
    var stored = StoredPages()
    var cursor = held
    try cursor.split(range) { (piece, isHeld) throws(CopyFailure) in
      try store(piece, flags: flags, isHeld: isHeld, &stored, read: read)
    }
    held = cursor
    return stored
  }

  private mutating func store(
    _ range: PageRange, flags: PagemapFlags, isHeld: Bool, _ stored: inout StoredPages,
    read: (UInt64, UnsafeMutableRawBufferPointer) throws(KernelError) -> ProcessMemory.ReadResult
  ) throws(CopyFailure) {
    var position = range.start
    while position < range.end {
      let chunk = try currentChunk()
      let wanted = Int((range.end - position) / pageBytes)
      var isGone = false
      let began = MonotonicClock.now
      let taken: Int
      do throws(KernelError) {
        taken = try chunk.appendPresent(start: position, pageLimit: wanted, flags: flags) {
          (buffer) throws(KernelError) in
          switch try read(position, buffer) {
          case .pages(let count): return count
          case .addressSpaceGone:
            isGone = true
            return 0
          }
        }
      } catch { throw .kernel(error) }
      if isGone { throw .addressSpaceGone }
      if taken == 0 {
        if chunk.isFull {
          flush()
        } else {
          debt?.pay(PageRange(start: position, pageCount: 1))
          position += pageBytes
        }
        continue
      }
      let piece = PageRange(start: position, pageCount: UInt64(taken))
      counters.add(pages: UInt64(taken), nanoseconds: MonotonicClock.now - began)
      let digests = digests
      let unchanged = UInt64(
        chunk.replaceUnchanged { address, page in digests.note(address, page) && isHeld })
      populated.append(piece)
      throttle.spend(piece.byteCount, cancellation)
      debt?.pay(piece)
      position = piece.end
      counters.unchanged += unchanged
      stored.stored += piece.pageCount - unchanged
      stored.unchanged += unchanged
    }
  }

  /// Sends the last, partly filled chunk on its way.
  mutating func flush() {
    if let chunk { pipeline.submit(chunk) }
    chunk = nil
  }

  private mutating func currentChunk() throws(CopyFailure) -> Chunk {
    if let chunk, !chunk.isFull { return chunk }
    flush()
    if cancellation?.isCancelled ?? false { throw .interrupted }
    do throws(PipelineFailed) {
      let fresh = try pipeline.takeChunk()
      chunk = fresh
      return fresh
    } catch { throw .pipeline }
  }
}

/// What became of pages that were to be stored.
struct StoredPages: Sendable, Equatable {
  var stored: UInt64 = 0
  /// Taken from the parent, which holds the very same bytes.
  var unchanged: UInt64 = 0
}

/// What was copied and what it cost.
struct CopyCounters: Sendable, Equatable {
  /// Pages read.
  var pages: UInt64 = 0
  /// Of these, pages that the parent held already.
  var unchanged: UInt64 = 0
  var reads: UInt64 = 0
  var nanoseconds: UInt64 = 0

  var bytes: UInt64 { pages * pageBytes }

  mutating func add(pages: UInt64, nanoseconds: UInt64) {
    self.pages += pages
    self.nanoseconds += nanoseconds
    reads += 1
  }
}

/// Why a round cannot be copied to its end.
enum CopyFailure: Error {
  /// The writer failed; the pipeline's end tells why.
  case pipeline
  /// The target exited or called execve.
  case addressSpaceGone
  /// The caller asked to stop.
  case interrupted
  case kernel(KernelError)
}
