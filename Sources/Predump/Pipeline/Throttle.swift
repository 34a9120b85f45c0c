internal import Kernel

/// Keeps reading below a number of bytes a second, by pauses.
struct Throttle: Sendable {
  /// So much may be read at once after a time of little reading (ns worth of bytes).
  private static let burstNanoseconds: UInt64 = 100_000_000

  private let bytesPerSecond: UInt64
  /// When what was read so far is paid for (CLOCK_MONOTONIC, ns).
  private var paidUntil = MonotonicClock.now

  /// - Parameter bytesPerSecond: 0 is without limit.
  init(bytesPerSecond: UInt64) { self.bytesPerSecond = bytesPerSecond }

  /// Counts bytes that were read, and waits until they are paid for or the wait is cancelled.
  mutating func spend(_ bytes: UInt64, _ cancellation: Cancellation?) {
    if bytesPerSecond == 0 { return }
    let price = UInt64(Double(bytes) / Double(bytesPerSecond) * 1e9)
    paidUntil = max(paidUntil, MonotonicClock.now &- Self.burstNanoseconds) + price
    Self.wait(until: paidUntil, cancellation)
  }

  /// Waits in short pieces, so that a wish to stop is heard, and until `isOver`.
  static func wait(
    until deadline: UInt64, _ cancellation: Cancellation?, isOver: () -> Bool = { false }
  ) {
    while !(cancellation?.isCancelled ?? false), !isOver() {
      let now = MonotonicClock.now
      if now >= deadline { return }
      MonotonicClock.pause(nanoseconds: min(deadline - now, 50_000_000))
    }
  }
}
