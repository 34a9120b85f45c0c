internal import Images
internal import Kernel

/// Fills chunks with what a round holds, or with what is to be read for it, and counts.
struct RoundCopier {
  private let pipeline: ChunkPipeline
  /// Of the current process or object; nil where all pages are at hand.
  private var reader: RoundReader?
  private let cancellation: Cancellation?
  private var throttle: Throttle
  private var debt: ScanDebt?
  private var history: StreamHistory?
  private var chunk: Chunk?
  /// What the round holds so far, and what is planned, of the process or object that is being copied.
  private(set) var populated = PopulatedSet()

  /// - Parameters:
  ///   - cancellation: nil where stopping half-way would be worse than going on.
  ///   - bytesPerSecondLimit: what is read at most; 0 is without limit.
  init(
    pipeline: ChunkPipeline, cancellation: Cancellation?, bytesPerSecondLimit: UInt64 = 0
  ) {
    self.pipeline = pipeline
    self.cancellation = cancellation
    throttle = Throttle(bytesPerSecond: bytesPerSecondLimit)
  }

  /// What follows are pages of another process, or of a shared object.
  ///
  /// - Parameters:
  ///   - reader: reads what is planned, and takes what is unchanged from the parent.
  ///   - history: notes what is stored.
  ///   - debt: of the scans whose pages are stored.
  mutating func begin(
    _ reader: RoundReader, _ history: StreamHistory? = nil, debt: ScanDebt? = nil
  ) {
    flush()
    self.reader = reader
    self.history = history
    self.debt = debt
    populated = PopulatedSet()
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

  /// Stores a run, which the pipeline reads. What it cannot read its reader tells.
  mutating func plan(_ range: PageRange, flags: PagemapFlags) throws(CopyFailure) {
    var position = range.start
    while position < range.end {
      let taken = try currentChunk().appendPlanned(
        start: position, pageLimit: Int((range.end - position) / pageBytes), flags: flags)
      if taken == 0 {
        flush()
        continue
      }
      let piece = PageRange(start: position, pageCount: UInt64(taken))
      populated.append(piece)
      throttle.spend(piece.byteCount, cancellation)
      debt?.pay(piece)
      history?.willStore(piece)
      position = piece.end
    }
  }

  /// Stores a run, whose bytes `read` fetches piece by piece.
  ///
  /// A page that cannot be read (unmapped since the scan, a guard page, beyond a file's end) is
  /// left out, as a hole; the next round meets it as new.
  ///
  /// - Parameter read: as `ProcessMemory.readPages`.
  /// - Returns: pages stored.
  mutating func store(
    _ range: PageRange, flags: PagemapFlags,
    read: (UInt64, UnsafeMutableRawBufferPointer) throws(KernelError) -> ProcessMemory.ReadResult
  ) throws(CopyFailure) -> UInt64 {
    var position = range.start
    var stored: UInt64 = 0
    while position < range.end {
      let chunk = try currentChunk()
      pipeline.makeRoom(in: chunk)
      let wanted = Int((range.end - position) / pageBytes)
      var isGone = false
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
          position += pageBytes
        }
        continue
      }
      let piece = PageRange(start: position, pageCount: UInt64(taken))
      populated.append(piece)
      history?.willStore(piece)
      position = piece.end
      stored += UInt64(taken)
    }
    return stored
  }

  /// Sends the last, partly filled chunk on its way.
  mutating func flush() {
    if let chunk { pipeline.submit(chunk, reader) }
    chunk = nil
  }

  private mutating func currentChunk() throws(CopyFailure) -> Chunk {
    if let chunk, !chunk.isFull { return chunk }
    flush()
    if cancellation?.isCancelled ?? false { throw .interrupted }
    if let failure = reader?.progress.failure { throw .kernel(failure) }
    do throws(PipelineFailed) {
      let fresh = try pipeline.takeChunk()
      chunk = fresh
      return fresh
    } catch { throw .pipeline }
  }
}

/// What was copied and what it cost.
struct CopyCounters: Sendable, Equatable {
  var pages: UInt64 = 0
  var reads: UInt64 = 0
  /// Processor time, of all threads that read.
  var nanoseconds: UInt64 = 0

  var bytes: UInt64 { pages * pageBytes }

  mutating func add(pages: UInt64, nanoseconds: UInt64) {
    self.pages += pages
    self.nanoseconds += nanoseconds
    reads += 1
  }

  mutating func add(_ other: CopyCounters) {
    pages += other.pages
    nanoseconds += other.nanoseconds
    reads += other.reads
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
