import Kernel
import TestSupport
import Testing

@testable import Predump

struct PieceCutterTests {
  private func range(_ pages: Range<UInt64>) -> PageRange {
    PageRange(start: pages.lowerBound * pageBytes, end: pages.upperBound * pageBytes)
  }

  private func cut(_ vmas: [Range<UInt64>], held: [Range<UInt64>]) -> [PieceCutter.Piece] {
    var set = PopulatedSet()
    for run in held { set.append(range(run)) }
    var cutter = PieceCutter(set, PieceLimits(heldPages: 4, leastStillPages: 2))
    for (index, vma) in vmas.enumerated() { cutter.cut(range(vma), vma: index) }
    return cutter.pieces
  }

  private func piece(_ pages: Range<UInt64>, _ vma: Int, full: Bool) -> PieceCutter.Piece {
    .init(range: range(pages), vma: vma, isFull: full)
  }

  @Test("pieces are cut by what is held, not by their length")
  func byHeldPages() {
    #expect(cut([0..<1 << 30], held: []) == [piece(0..<1 << 30, 0, full: false)])
    #expect(
      cut([0..<1000], held: [10..<16]) == [
        piece(0..<14, 0, full: false), piece(14..<1000, 0, full: false),
      ])
  }

  @Test("a piece is full if every page of it is held and there are enough of them")
  func full() {
    #expect(
      cut([0..<11], held: [0..<11]) == [
        piece(0..<4, 0, full: true), piece(4..<8, 0, full: true), piece(8..<11, 0, full: true),
      ])
    #expect(
      cut([0..<5], held: [0..<5]) == [piece(0..<4, 0, full: true), piece(4..<5, 0, full: false)])
    #expect(cut([0..<4], held: [0..<2, 3..<4]) == [piece(0..<4, 0, full: false)])
  }

  @Test("a run that reaches into the next VMA counts in both, and none reaches over an edge")
  func edges() {
    #expect(
      cut([0..<2, 2..<4, 6..<8], held: [1..<7]) == [
        piece(0..<2, 0, full: false), piece(2..<4, 1, full: true), piece(6..<8, 2, full: false),
      ])
  }

  @Test("every page of every VMA is in one piece, in order, whatever is held")
  func covers() {
    let seed = UInt64.random(in: 0..<1 << 48)
    var random = SeededRandom(seed: seed)
    for _ in 0..<200 {
      var vmas: [Range<UInt64>] = []
      var held: [Range<UInt64>] = []
      for list in 0..<2 {
        var position: UInt64 = 0
        for _ in 0..<20 {
          let start = position + .random(in: 0...3, using: &random)
          let end = start + .random(in: 1...30, using: &random)
          if list == 0 { vmas.append(start..<end) } else { held.append(start..<end) }
          position = end
        }
      }
      let pieces = cut(vmas, held: held)
      var set = Set<UInt64>()
      for run in held { set.formUnion(run) }
      for (index, vma) in vmas.enumerated() {
        let mine = pieces.filter { $0.vma == index }
        let pages = mine.flatMap { $0.range.start / pageBytes..<$0.range.end / pageBytes }
        #expect(pages == Array(vma), "seed \(seed)")
        for piece in mine where piece.isFull {
          let isHeld = (piece.range.start / pageBytes..<piece.range.end / pageBytes)
            .allSatisfy(set.contains)
          #expect(isHeld, "seed \(seed)")
        }
      }
    }
  }
}
