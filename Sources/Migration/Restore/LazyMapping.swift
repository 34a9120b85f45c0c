internal import Kernel

/// Where the missing pages of a process are that runs already: it may move them, or do without them.
struct LazyMapping: Sendable, Equatable {
  /// A range that still is what it was in the images.
  struct Piece: Sendable, Equatable {
    /// Where it was.
    var source: PageRange
    /// Where it is.
    var address: UInt64

    var range: PageRange { PageRange(start: address, end: address + source.byteCount) }

    /// The part of it that is in `range` now.
    func part(in range: PageRange) -> Piece {
      let part = self.range.intersection(range)
      let start = source.start + (part.start - address)
      return Piece(
        source: PageRange(start: start, end: start + part.byteCount), address: part.start)
    }

    /// The part of it that was in `range`.
    func part(from range: PageRange) -> Piece {
      let part = source.intersection(range)
      return Piece(source: part, address: address + (part.start - source.start))
    }
  }

  /// What is where it was: nearly everything. Ascending, and found in the time that a binary search
  /// takes.
  private var still: [PageRange]
  /// What is elsewhere, in no order.
  private var moved: [Piece] = []

  /// All of `ranges`, which ascend, where they were.
  init(_ ranges: [PageRange]) { still = ranges }

  /// Pages that are left.
  var pageCount: UInt64 {
    still.reduce(0) { $0 + $1.pageCount } + moved.reduce(0) { $0 + $1.source.pageCount }
  }

  /// A page that is left; nil if there is none.
  var firstAddress: UInt64? { still.first?.start ?? moved.first?.address }

  /// What is left of `source`, in no order.
  func pieces(of source: PageRange) -> [Piece] {
    var result: [Piece] = []
    for range in still[first(endingAfter: source.start)...] {
      if range.start >= source.end { break }
      let part = range.intersection(source)
      result.append(Piece(source: part, address: part.start))
    }
    for piece in moved {
      let part = piece.part(from: source)
      if !part.source.isEmpty { result.append(part) }
    }
    return result
  }

  /// What is at `address`, up to the end of its piece; nil if nothing of the images is.
  func piece(at address: UInt64) -> Piece? {
    let rest = PageRange(start: address, end: .max)
    let index = first(endingAfter: address)
    if index < still.count, still[index].contains(address) {
      return Piece(source: still[index].intersection(rest), address: address)
    }
    return moved.first { $0.range.contains(address) }?.part(in: rest)
  }

  /// What is at `range` is gone.
  mutating func remove(_ range: PageRange) { _ = take(range) }

  /// What is at `range` is at `address` from now on, and what was there is gone.
  mutating func move(_ range: PageRange, to address: UInt64) {
    let taken = take(range)
    remove(PageRange(start: address, end: address + range.byteCount))
    for piece in taken {
      let there = Piece(source: piece.source, address: address + (piece.address - range.start))
      if there.address == there.source.start {
        still.insert(there.source, at: first(endingAfter: there.address))
      } else {
        moved.append(there)
      }
    }
  }

  /// Removes what is at `range`, and returns it.
  private mutating func take(_ range: PageRange) -> [Piece] {
    var taken: [Piece] = []
    let begin = first(endingAfter: range.start)
    var end = begin
    while end < still.count, still[end].start < range.end {
      let part = still[end].intersection(range)
      taken.append(Piece(source: part, address: part.start))
      end += 1
    }
    if begin < end {
      let before = PageRange(start: still[begin].start, end: range.start)
      let after = PageRange(start: range.end, end: still[end - 1].end)
      still.replaceSubrange(begin..<end, with: [before, after].filter { !$0.isEmpty })
    }
    for (index, piece) in moved.enumerated().reversed() {
      let part = piece.part(in: range)
      if part.source.isEmpty { continue }
      taken.append(part)
      let before = piece.part(in: PageRange(start: 0, end: part.address))
      let after = piece.part(in: PageRange(start: part.range.end, end: .max))
      moved.replaceSubrange(index...index, with: [before, after].filter { !$0.source.isEmpty })
    }
    return taken
  }

  /// The first range that is still where it was and does not end before `address`.
  private func first(endingAfter address: UInt64) -> Int {
    var (low, high) = (0, still.count)
    while low < high {
      let middle = (low + high) / 2
      if still[middle].end <= address { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
