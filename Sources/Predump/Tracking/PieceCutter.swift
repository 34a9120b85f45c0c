internal import Kernel

/// How long a piece may be.
package struct PieceLimits: Sendable {
  /// Pages of a piece that a round holds, at most. Four thousand take a thread some 20 µs.
  package var heldPages: UInt64 = 4096
  /// Shorter pieces are not worth asking if they are still.
  package var leastStillPages: UInt64 = 1024
}

/// Cuts VMAs into pieces of about the same work: by what the round before holds of them, not by their
/// length, so that a reservation of terabytes is one piece.
struct PieceCutter {
  struct Piece: Equatable {
    var range: PageRange
    /// The VMA (index) that it is a part of.
    var vma: Int
    /// Whether the round before holds every page of it, and there are enough of them to ask if it is
    /// still.
    var isFull: Bool
  }

  private(set) var pieces: [Piece] = []
  private let held: [PageRange]
  private let limits: PieceLimits
  private var next = 0

  init(_ held: PopulatedSet, _ limits: PieceLimits) {
    self.held = held.runs
    self.limits = limits
  }

  /// Cuts a VMA. They come in ascending order.
  mutating func cut(_ range: PageRange, vma: Int) {
    var start = range.start
    var pages: UInt64 = 0
    while next < held.count, held[next].end <= range.start { next += 1 }
    var index = next
    while index < held.count, held[index].start < range.end {
      let run = held[index].intersection(range)
      var position = run.start
      while position < run.end {
        let taken = min(limits.heldPages - pages, (run.end - position) / pageBytes)
        position += taken * pageBytes
        pages += taken
        if pages == limits.heldPages {
          add(PageRange(start: start, end: position), vma, pages)
          (start, pages) = (position, 0)
        }
      }
      index += 1
    }
    if start < range.end { add(PageRange(start: start, end: range.end), vma, pages) }
  }

  private mutating func add(_ range: PageRange, _ vma: Int, _ heldPages: UInt64) {
    let isFull = heldPages == range.pageCount && heldPages >= limits.leastStillPages
    pieces.append(Piece(range: range, vma: vma, isFull: isFull))
  }
}
