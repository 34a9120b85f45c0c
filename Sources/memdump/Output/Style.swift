internal import ArgumentParser
internal import Glibc

/// When to colour.
enum ColorChoice: String, ExpressibleByArgument, CaseIterable, Sendable {
  case auto, always, never
}

/// Colours for one stream, or none.
struct Style: Sendable {
  let isEnabled: Bool

  init(_ choice: ColorChoice, on stream: TextStream) {
    isEnabled =
      switch choice {
      case .always: true
      case .never: false
      case .auto: stream.isTerminal && Environment.allowsColor
      }
  }

  func bold(_ text: String) -> String { wrap(text, "1") }
  func dim(_ text: String) -> String { wrap(text, "2") }
  func red(_ text: String) -> String { wrap(text, "1;31") }
  func green(_ text: String) -> String { wrap(text, "32") }
  func yellow(_ text: String) -> String { wrap(text, "33") }

  private func wrap(_ text: String, _ code: String) -> String {
    isEnabled ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text
  }
}

/// What the environment says of the terminal.
enum Environment {
  /// `NO_COLOR` unset or empty, and a terminal that moves its cursor.
  static var allowsColor: Bool { (value("NO_COLOR") ?? "").isEmpty && isSmartTerminal }

  /// Whether the terminal understands escape sequences.
  static var isSmartTerminal: Bool { value("TERM").map { $0 != "dumb" && !$0.isEmpty } ?? false }

  private static func value(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
}
