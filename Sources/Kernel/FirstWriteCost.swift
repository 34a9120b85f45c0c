/// What the kernel takes for the first write to a page after a scan has protected it: the price that
/// a tracked process pays for each such page, on this machine and now.
package enum FirstWriteCost {
  private static let pageCount = 256
  private static let turns = 5

  /// Writes to protected pages of memdump's own, and to the same pages once more: the difference, in
  /// nanoseconds a page, of the fastest of some turns. Less than a millisecond each.
  package static func measure() throws(KernelError) -> UInt64 {
    let memory = try SelfTestMemory(pageCount: pageCount)
    let tracker = try SelfTestTracker()
    memory.storeAll(1)
    try tracker.register(memory.range)
    var best = UInt64.max
    for _ in 0..<turns {
      _ = try tracker.scan(memory.range, protect: true)
      let began = MonotonicClock.now
      memory.storeAll(2)
      let between = MonotonicClock.now
      memory.storeAll(3)
      let ended = MonotonicClock.now
      let (first, second) = (between - began, ended - between)
      best = min(best, first - min(first, second))
    }
    return best / UInt64(pageCount)
  }
}
