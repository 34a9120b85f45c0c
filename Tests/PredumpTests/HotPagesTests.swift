import Kernel
import TestSupport
import Testing

@testable import Predump

struct HotPagesTests {
  private func set(_ pages: Range<UInt64>...) -> PopulatedSet {
    var set = PopulatedSet()
    for run in pages {
      set.append(
        PageRange(start: run.lowerBound * pageBytes, end: run.upperBound * pageBytes))
    }
    return set
  }

  private let everything = PageRange(start: 0, pageCount: 1 << 20)
  private var all: PopulatedSet {
    var set = PopulatedSet()
    set.append(everything)
    return set
  }

  @Test("a page waits once it was found written three times in a row, not before")
  func streak() {
    var hot = HotPages()
    hot.observe(set(0..<10))
    hot.decide(pending: set(0..<10), held: all, limit: .max)
    #expect(hot.waiting.runs.isEmpty)
    hot.observe(set(5..<20))
    hot.decide(pending: set(0..<8), held: all, limit: .max)
    #expect(hot.waiting.runs == set(5..<8).runs)
  }

  @Test("a page that was not written in one round begins anew")
  func gap() {
    var hot = HotPages()
    hot.observe(set(0..<4))
    hot.observe(set(8..<9))
    hot.observe(set(0..<4))
    hot.decide(pending: set(0..<4), held: all, limit: .max)
    #expect(hot.waiting.runs.isEmpty)
  }

  @Test("what waits goes on waiting, though no round finds it written, until it is gone")
  func stays() {
    var hot = HotPages()
    for _ in 0..<2 { hot.observe(set(0..<10)) }
    hot.decide(pending: set(0..<10), held: all, limit: .max)
    // The next rounds pass over it.
    for _ in 0..<3 {
      hot.observe(set(20..<21))
      hot.decide(pending: set(0..<10), held: all, limit: .max)
      #expect(hot.waiting.runs == set(0..<10).runs)
    }
    hot.decide(pending: set(0..<3, 6..<10), held: all, limit: .max)
    #expect(hot.waiting.runs == set(0..<3, 6..<10).runs)
    hot.decide(pending: set(0..<10), held: all, limit: .max)
    #expect(hot.waiting.runs == set(0..<3, 6..<10).runs)
  }

  @Test("only what the round before holds can wait, and no more than there is room for")
  func limits() {
    var hot = HotPages()
    for _ in 0..<2 { hot.observe(set(0..<10)) }
    hot.decide(pending: set(0..<10), held: set(0..<2, 4..<9), limit: 4)
    #expect(hot.waiting.runs == set(0..<2, 4..<6).runs)
    hot.decide(pending: set(0..<10), held: all, limit: 0)
    #expect(hot.waiting.runs.isEmpty)
  }

  @Test("sets are united, intersected and cut as lists of pages are")
  func algebra() {
    let seed = UInt64.random(in: 0..<1 << 48)
    var random = SeededRandom(seed: seed)
    func pages(_ set: PopulatedSet) -> [UInt64] {
      set.runs.flatMap { $0.start / pageBytes..<$0.end / pageBytes }
    }
    for _ in 0..<300 {
      let numbers = (0..<2).map { _ in
        Set((0..<30).map { _ in UInt64.random(in: 0..<60, using: &random) })
      }
      let sets = numbers.map { numbers in
        var set = PopulatedSet()
        for page in numbers.sorted() {
          set.append(PageRange(start: page * pageBytes, pageCount: 1))
        }
        return set
      }
      #expect(
        pages(sets[0].union(sets[1])) == numbers[0].union(numbers[1]).sorted(), "seed \(seed)")
      #expect(
        pages(sets[0].intersection(sets[1])) == numbers[0].intersection(numbers[1]).sorted(),
        "seed \(seed)")
      let limit = UInt64.random(in: 0...30, using: &random)
      #expect(
        pages(sets[0].prefix(pages: limit, runs: .max))
          == Array(numbers[0].sorted().prefix(Int(limit))), "seed \(seed)")
    }
  }
}
