import Foundation
import TestSupport
import Testing

@testable import Kernel

struct RegionMergerTests {
  private func region(_ pages: Range<UInt64>, _ categories: PageCategories) -> PageRegion {
    PageRegion(
      range: PageRange(start: pages.lowerBound * pageBytes, end: pages.upperBound * pageBytes),
      categories: categories)
  }

  private func flushed(_ merger: inout RegionMerger, before page: UInt64?) -> [PageRegion] {
    var result: [PageRegion] = []
    merger.flush(before: page.map { $0 * pageBytes } ?? .max) { result.append($0) }
    return result
  }

  @Test("what one call reports comes out as it went in")
  func oneCall() {
    var merger = RegionMerger()
    let reported = [
      region(0..<2, .present), region(2..<4, [.present, .written]), region(5..<6, .present),
    ]
    for region in reported { merger.add(region) }
    #expect(flushed(&merger, before: 10) == reported)
    #expect(flushed(&merger, before: nil).isEmpty)
  }

  @Test("a page that is reported again without its written bit stays written")
  func keepsWritten() {
    var merger = RegionMerger()
    merger.add(region(0..<4, [.present, .written]))
    #expect(flushed(&merger, before: 2) == [region(0..<2, [.present, .written])])
    merger.add(region(2..<6, .present))
    #expect(
      flushed(&merger, before: nil) == [
        region(2..<4, [.present, .written]), region(4..<6, .present),
      ])
  }

  @Test(
    "a page that holds data in one of two reports is not taken for one that holds none",
    arguments: [PageCategories.zero, .guardPage])
  func keepsData(_ dataless: PageCategories) {
    let (data, none): (PageCategories, PageCategories) = (
      [.present, .written], [.present, .written, dataless]
    )
    for (first, second) in [(data, none), (none, data), (none, none)] {
      var merger = RegionMerger()
      merger.add(region(0..<4, first))
      #expect(flushed(&merger, before: 0).isEmpty)
      merger.add(region(0..<2, second))
      let expected = first == none && second == none ? none : data
      #expect(flushed(&merger, before: 2) == [region(0..<2, expected)])
      #expect(flushed(&merger, before: nil) == [region(2..<4, first)])
    }
  }

  @Test("a flush keeps what lies behind it")
  func flushSplits() {
    var merger = RegionMerger()
    merger.add(region(0..<4, .present))
    #expect(flushed(&merger, before: 0).isEmpty)
    #expect(flushed(&merger, before: 1) == [region(0..<1, .present)])
    #expect(flushed(&merger, before: nil) == [region(1..<4, .present)])
    #expect(flushed(&merger, before: nil).isEmpty)
  }

  /// Walks as the kernel does: a call reports ascending regions and may stop before the end of what
  /// it reported, from where the next call reports again.
  @Test(
    "whatever is reported again, each page comes once, in order, with all its categories",
    arguments: SeededRandom.seeds(400, environment: ProcessInfo.processInfo.environment))
  func randomWalks(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    let pageCount = UInt64.random(in: 1...60, using: &random)
    let kinds: [PageCategories] = [.present, [.present, .written], .swapped, .zero]
    var reports: [UInt64: [PageCategories]] = [:]
    var merger = RegionMerger()
    var result: [PageRegion] = []
    var position: UInt64 = 0
    while position < pageCount {
      var page = position
      let stop = UInt64.random(in: (position + 1)...pageCount, using: &random)
      while page < stop {
        let end = UInt64.random(in: (page + 1)...stop, using: &random)
        if Bool.random(using: &random), let kind = kinds.randomElement(using: &random) {
          for reported in page..<end { reports[reported, default: []].append(kind) }
          merger.add(region(page..<end, kind))
        }
        page = end
      }
      position = UInt64.random(in: (position + 1)...stop, using: &random)
      result += flushed(&merger, before: position)
      #expect(result.last.map { $0.range.end <= position * pageBytes } ?? true, "seed \(seed)")
    }
    result += flushed(&merger, before: nil)
    var seen: [UInt64: PageCategories] = [:]
    var end: UInt64 = 0
    for region in result {
      #expect(region.range.start >= end && !region.range.isEmpty, "seed \(seed): out of order")
      end = region.range.end
      for page in region.range.start / pageBytes..<region.range.end / pageBytes {
        seen[page] = region.categories
      }
    }
    let expected = reports.mapValues { kinds in
      let all = kinds.reduce(PageCategories()) { $0.union($1) }
      let holdsNone = kinds.allSatisfy { $0.contains(.zero) }
      return holdsNone ? all : all.subtracting(.zero)
    }
    #expect(seen == expected, "seed \(seed)")
  }
}
