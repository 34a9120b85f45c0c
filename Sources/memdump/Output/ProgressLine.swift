internal import Synchronization

/// The one line at the bottom of the terminal that changes.
final class ProgressLine: Sendable {
  private let stream: TextStream
  private let isShown = Atomic<Bool>(false)

  init(on stream: TextStream) { self.stream = stream }

  /// Shows `text` in place of what was there, cut to the width of the terminal.
  func show(_ text: String) {
    isShown.store(true, ordering: .releasing)
    stream.write("\r\u{1b}[K" + text.prefix(max(0, stream.columns - 1)))
  }

  /// Takes the line away. Called before anything else is printed, and at every end.
  func erase() {
    if isShown.exchange(false, ordering: .acquiringAndReleasing) { stream.write("\r\u{1b}[K") }
  }

  /// A bar such as `[#####-----]`.
  static func bar(_ done: UInt64, of total: UInt64, width: Int) -> String {
    let share = total == 0 ? 0 : min(1, Double(done) / Double(total))
    let filled = Int(share * Double(width))
    return "[" + String(repeating: "#", count: filled)
      + String(repeating: "-", count: width - filled) + "]"
  }
}
