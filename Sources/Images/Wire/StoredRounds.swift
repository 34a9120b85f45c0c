/// What a receiver has when a connection begins, in its greeting. The digest of the first round's
/// record names the session, that of the last one the place where it is to go on.
struct StoredRounds: Equatable {
  var count = 0
  var first = Digest128(high: 0, low: 0)
  var last = Digest128(high: 0, low: 0)

  /// Nothing yet.
  init() {}

  init(count: Int, first: Digest128, last: Digest128) {
    (self.count, self.first, self.last) = (count, first, last)
  }

  /// Reads five words of a greeting.
  init(words: [UInt64]) {
    count = Int(clamping: words[0])
    first = Digest128(high: words[1], low: words[2])
    last = Digest128(high: words[3], low: words[4])
  }

  var words: [UInt64] { [UInt64(count), first.high, first.low, last.high, last.low] }
}
