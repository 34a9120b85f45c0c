import Foundation
import Kernel
import TestSupport
import Testing

@testable import Predump

struct PopulatedSetTests {
  private func range(_ pages: Range<UInt64>) -> PageRange {
    PageRange(start: pages.lowerBound * pageBytes, end: pages.upperBound * pageBytes)
  }

  @Test("adjoining pages become one run, empty ones none")
  func append() {
    var set = PopulatedSet()
    set.append(range(0..<2))
    set.append(range(2..<2))
    set.append(range(2..<3))
    set.append(range(5..<6))
    #expect(set.runs == [range(0..<3), range(5..<6)])
  }

  @Test(
    "splitting tells of every page whether it is held, in order, each once",
    arguments: SeededRandom.seeds(300, environment: ProcessInfo.processInfo.environment))
  func splits(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    let pageCount: UInt64 = 80
    var set = PopulatedSet()
    var model: Set<UInt64> = []
    var page: UInt64 = 0
    while page < pageCount {
      let end = UInt64.random(in: (page + 1)...pageCount, using: &random)
      let stop = min(end, page + UInt64.random(in: 1...9, using: &random))
      if Bool.random(using: &random) {
        set.append(range(page..<stop))
        model.formUnion(page..<stop)
      }
      page = stop
    }
    var cursor = PopulatedSet.Cursor(set)
    page = 0
    while page < pageCount {
      // Some pages are never asked for.
      let start = min(pageCount, page + UInt64.random(in: 0...6, using: &random))
      let end = min(pageCount, start + UInt64.random(in: 0...25, using: &random))
      var position = start * pageBytes
      cursor.split(range(start..<end)) { piece, isHeld in
        #expect(piece.start == position && !piece.isEmpty, "seed \(seed)")
        position = piece.end
        for page in piece.start / pageBytes..<piece.end / pageBytes {
          #expect(model.contains(page) == isHeld, "seed \(seed), page \(page)")
        }
      }
      #expect(position == end * pageBytes, "seed \(seed)")
      page = max(end, page + 1)
    }
  }
}
