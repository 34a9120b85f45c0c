import Kernel
import Testing

@testable import Predump

/// What may be taken from the parent after rounds were lost.
struct StreamHistoryTests {
  private static func pages(_ numbers: Range<UInt64>) -> PageRange {
    PageRange(start: numbers.lowerBound * pageBytes, end: numbers.upperBound * pageBytes)
  }

  private static func set(_ ranges: Range<UInt64>...) -> PopulatedSet {
    var set = PopulatedSet()
    for range in ranges { set.append(pages(range)) }
    return set
  }

  private let history: StreamHistory

  init() throws { history = StreamHistory(digests: try PageDigests(slotCount: 64)) }

  /// A round that stores `stored`, after which `held` is held.
  private func round(
    _ number: Int, confirmed: Int, stores stored: [Range<UInt64>], holds held: PopulatedSet
  ) {
    history.begin(round: number, confirmed: confirmed)
    for range in stored { history.willStore(Self.pages(range)) }
    history.held = held
  }

  @Test("what a lost round stored is held by nobody, what it left alone is") func lost() {
    round(1, confirmed: 0, stores: [0..<20], holds: Self.set(0..<20))
    round(2, confirmed: 1, stores: [5..<7, 12..<13], holds: Self.set(0..<20))
    history.rollBack(to: 1)
    #expect(history.held.runs == Self.set(0..<5, 7..<12, 13..<20).runs)
  }

  @Test("several lost rounds, the last of them half done, in any order") func several() {
    round(1, confirmed: 0, stores: [0..<20], holds: Self.set(0..<20))
    // Pages go and others come: neither is the chain's.
    round(2, confirmed: 1, stores: [5..<7, 30..<40], holds: Self.set(0..<15, 30..<40))
    history.begin(round: 3, confirmed: 1)
    for range in [12..<14 as Range<UInt64>, 2..<3, 13..<16] { history.willStore(Self.pages(range)) }
    history.rollBack(to: 1)
    #expect(history.held.runs == Self.set(0..<2, 3..<5, 7..<12, 16..<20).runs)
    // And once more, before anything else came of it.
    round(2, confirmed: 1, stores: [0..<1], holds: Self.set(0..<20))
    history.rollBack(to: 1)
    #expect(history.held.runs == Self.set(1..<2, 3..<5, 7..<12, 16..<20).runs)
  }

  @Test("a round that is known to be safe is not lost") func confirmed() {
    round(1, confirmed: 0, stores: [0..<20], holds: Self.set(0..<20))
    round(2, confirmed: 1, stores: [5..<7], holds: Self.set(0..<20))
    history.begin(round: 3, confirmed: 2)
    history.rollBack(to: 2)
    #expect(history.held.runs == Self.set(0..<20).runs)
  }

  @Test("a history that is replaced takes what may be lost with it") func inherited() throws {
    round(1, confirmed: 0, stores: [0..<20], holds: Self.set(0..<20))
    round(2, confirmed: 1, stores: [5..<7], holds: Self.set(0..<20))
    let other = StreamHistory(digests: try PageDigests(slotCount: 128))
    other.inherit(history)
    other.begin(round: 3, confirmed: 1)
    other.willStore(Self.pages(9..<10))
    other.rollBack(to: 1)
    #expect(other.held.runs == Self.set(0..<5, 7..<9, 10..<20).runs)
  }

  @Test("after a loss a page that goes back to lost bytes is not taken for what the chain holds")
  func digests() {
    let page = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(pageBytes), alignment: 4096)
    defer { page.deallocate() }
    page.initializeMemory(as: UInt8.self, repeating: 7)
    guard let base = UnsafeRawPointer(page.baseAddress) else { return }
    round(1, confirmed: 0, stores: [0..<1], holds: Self.set(0..<1))
    round(2, confirmed: 0, stores: [0..<1], holds: Self.set(0..<1))
    _ = history.digests.note(0, base)
    history.rollBack(to: 0)
    #expect(history.held.runs.isEmpty)
    // Nothing is held, as before the first round; but there are digests of what was lost.
    #expect(history.wasRolledBack)
  }
}
