import Foundation
import Kernel
import TestSupport
import Testing

@testable import Migration

/// Where missing pages are by now, against a model that knows every page.
@Suite struct LazyMappingTests {
  private func range(_ start: UInt64, _ count: UInt64) -> PageRange {
    PageRange(start: start * pageBytes, pageCount: count)
  }

  @Test("what is moved is found where it is, what is removed nowhere")
  func moves() {
    var mapping = LazyMapping([range(10, 4), range(20, 2)])
    mapping.move(range(11, 2), to: 30 * pageBytes)
    #expect(mapping.piece(at: 11 * pageBytes) == nil)
    #expect(
      mapping.piece(at: 31 * pageBytes)
        == LazyMapping.Piece(source: range(12, 1), address: 31 * pageBytes))
    #expect(
      mapping.pieces(of: range(10, 4)).map(\.address) == [10, 13, 30].map { $0 * pageBytes })
    mapping.move(range(30, 2), to: 11 * pageBytes)
    #expect(mapping.pieces(of: range(10, 4)).allSatisfy { $0.address == $0.source.start })
    mapping.remove(range(0, 100))
    #expect(mapping.pageCount == 0)
  }

  @Test("random moves and removals end where a page table would")
  func random() {
    for seed in SeededRandom.seeds(50, environment: ProcessInfo.processInfo.environment) {
      var random = SeededRandom(seed: seed)
      let starts: [UInt64] = [3, 9, 14, 40]
      let ranges = starts.map { range($0, UInt64.random(in: 1...1 + $0 % 5, using: &random)) }
      var mapping = LazyMapping(ranges)
      // What was at which page, by where it is now.
      var model: [UInt64: UInt64] = [:]
      for range in ranges {
        for page in range.start / pageBytes..<range.end / pageBytes { model[page] = page }
      }
      for _ in 0..<40 {
        // From here to there, and from there back.
        let from =
          (Bool.random(using: &random) ? 100 : 0) + UInt64.random(in: 0..<60, using: &random)
        let count = UInt64.random(in: 1...8, using: &random)
        let pages = from..<from + count
        let taken = model.filter { pages.contains($0.key) }
        for page in pages { model[page] = nil }
        if Bool.random(using: &random) {
          mapping.remove(range(from, count))
        } else {
          // mremap refuses ranges that overlap.
          let to = (from < 60 ? 100 : 0) + UInt64.random(in: 0..<60, using: &random)
          for page in to..<to + count { model[page] = nil }
          for (page, source) in taken { model[to + page - from] = source }
          mapping.move(range(from, count), to: to * pageBytes)
        }
        for page in UInt64(0)..<200 {
          let found = mapping.piece(at: page * pageBytes)
          #expect(found?.source.start == model[page].map { $0 * pageBytes }, "seed \(seed)")
        }
        let all = mapping.pieces(of: range(0, 200))
        #expect(all.reduce(0) { $0 + $1.source.pageCount } == UInt64(model.count), "seed \(seed)")
        #expect(mapping.pageCount == UInt64(model.count), "seed \(seed)")
      }
    }
  }
}
