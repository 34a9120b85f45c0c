/// Random numbers that a seed reproduces (SplitMix64, Steele et al. 2014). A test that fails prints
/// its seed; `MEMDUMP_TEST_SEED` runs it again with that one.
package struct SeededRandom: RandomNumberGenerator, Sendable {
  private var state: UInt64

  /// Numbers that follow from `seed`.
  package init(seed: UInt64) { state = seed }

  package mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
    return value ^ value >> 31
  }

  /// The seeds to try: the one of the environment, else the same `count` ones in every run.
  package static func seeds(_ count: UInt64, environment: [String: String]) -> [UInt64] {
    if let given = environment["MEMDUMP_TEST_SEED"].flatMap({ UInt64($0) }) { return [given] }
    return Array(1...count)
  }
}
