internal import Images
internal import Kernel
internal import Synchronization

/// Reads of a frozen process, shared out among threads: each copies pieces until none is left.
///
/// Sendable because each piece is taken by one thread, which alone writes its part of the spool, and
/// the crew's queue orders that before the engine's reading.
final class FrozenReads: @unchecked Sendable {
  /// A run of pages and its place in the spool.
  struct Piece: Sendable {
    var range: PageRange
    var offset: Int
  }

  /// Pieces that a thread takes at once.
  private static let batch = 16

  private let pieces: [Piece]
  private let source: SharedProcessMemory
  // Owned by the frozen copy, which outlives the reads and does not move.
  private let spool: UnsafeMutableRawBufferPointer
  private let next = Atomic<Int>(0)
  private let state = Mutex(State())

  private struct State {
    var missing: [PageRange] = []
    var failure: CopyFailure?
  }

  /// - Parameter spool: every piece lies in it.
  init(
    _ pieces: [Piece], from source: SharedProcessMemory, into spool: UnsafeMutableRawBufferPointer
  ) {
    self.pieces = pieces
    self.source = source
    self.spool = spool
  }

  /// Whether one thread is done with it before another one is awake.
  var isSmall: Bool { pieces.count <= 2 * Self.batch }

  /// Copies until no piece is left, or one failed.
  func work() {
    while true {
      let first = next.wrappingAdd(Self.batch, ordering: .relaxed).oldValue
      if first >= pieces.count { return }
      do throws(CopyFailure) {
        for index in first..<min(first + Self.batch, pieces.count) { try read(pieces[index]) }
      } catch {
        state.withLock { $0.failure = $0.failure ?? error }
        next.store(pieces.count, ordering: .relaxed)
        return
      }
    }
  }

  /// What all of it came to.
  ///
  /// - Returns: pages that cannot be read, in any order.
  func finish() throws(CopyFailure) -> [PageRange] {
    let state = state.withLock { $0 }
    if let failure = state.failure { throw failure }
    return state.missing
  }

  private func read(_ piece: Piece) throws(CopyFailure) {
    var position = piece.range.start
    while position < piece.range.end {
      let offset = piece.offset + Int(position - piece.range.start)
      let count = Int(piece.range.end - position)
      let result: ProcessMemory.ReadResult
      do throws(KernelError) {
        result = try source.memory.readPages(
          at: position,
          into: UnsafeMutableRawBufferPointer(rebasing: spool[offset..<(offset + count)]))
      } catch { throw .kernel(error) }
      guard case .pages(let pages) = result else { throw .addressSpaceGone }
      position += UInt64(pages) * pageBytes
      if position < piece.range.end {
        let missing = PageRange(start: position, pageCount: 1)
        state.withLock { $0.missing.append(missing) }
        position = missing.end
      }
    }
  }
}
