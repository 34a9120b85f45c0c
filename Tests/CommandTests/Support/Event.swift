import Foundation

/// A line of `--json`.
struct Event {
  /// The line was no JSON object.
  struct NotAnObject: Error { let line: String }

  let fields: [String: Any]

  init(_ line: String) throws {
    guard let fields = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
    else { throw NotAnObject(line: line) }
    self.fields = fields
  }

  var name: String? { self["event"] }

  /// A field; nil if it is absent or of another type.
  subscript<Value>(_ key: String) -> Value? { fields[key] as? Value }
}
