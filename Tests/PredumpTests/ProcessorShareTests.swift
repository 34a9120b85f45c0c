import Testing

@testable import Predump

@Suite("Whether work that yields gets enough of the processor") struct ProcessorShareTests {
  private static let millisecond: UInt64 = 1_000_000

  /// Work that had `processor` of each 10 ms, for `milliseconds`.
  private func share(processor: UInt64, for milliseconds: UInt64) -> ProcessorShare {
    var share = ProcessorShare()
    for end in stride(from: 10, through: milliseconds, by: 10) {
      share.add(
        processor: processor * Self.millisecond, elapsed: 10 * Self.millisecond,
        at: end * Self.millisecond)
    }
    return share
  }

  @Test("it presses on when it gets less than an eighth", arguments: [(1, true), (2, false)])
  func tooLittle(processor: UInt64, isStarved: Bool) {
    #expect(
      share(processor: processor, for: 100).isStarved(at: 101 * Self.millisecond) == isStarved)
  }

  @Test("one moment says nothing") func oneMoment() {
    #expect(!share(processor: 0, for: 90).isStarved(at: 91 * Self.millisecond))
  }

  @Test("it yields again after a while") func after() {
    let share = share(processor: 0, for: 100)
    #expect(share.isStarved(at: 1099 * Self.millisecond))
    #expect(!share.isStarved(at: 1100 * Self.millisecond))
  }

  @Test("what was before does not count for ever") func recent() {
    var share = share(processor: 10, for: 1000)
    share.add(processor: 0, elapsed: 100 * Self.millisecond, at: 1100 * Self.millisecond)
    #expect(share.isStarved(at: 1101 * Self.millisecond))
  }
}
