internal import Kernel
internal import Tracee

/// A frozen process that outlives its round's copy: it is released once, or runs when this is
/// dropped.
final class HeldProcess {
  private let began: UInt64
  private var frozen: FrozenProcess?

  init(_ frozen: consuming FrozenProcess) {
    began = frozen.began
    self.frozen = consume frozen
  }

  /// Time since the first thread was asked to stop (ns).
  var nanoseconds: UInt64 { MonotonicClock.now - began }

  /// Ends the freeze; does nothing after the first time.
  ///
  /// - Returns: nanoseconds from the first thread asked to stop to the last one let go.
  @discardableResult
  func release(leaving state: LeaveState) throws(TraceError) -> UInt64 {
    guard let frozen = frozen.take() else { return 0 }
    return try frozen.thaw(leaving: state)
  }
}
