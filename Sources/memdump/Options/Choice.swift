internal import ArgumentParser

/// An option that is one of a few words.
enum Choice {
  /// Reads a case by its raw value.
  static func parser<Value>(_ type: Value.Type) -> @Sendable (String) throws -> Value
  where Value: RawRepresentable<String> & CaseIterable & Sendable {
    let cases = Value.allCases.map { $0 }
    let words = cases.map(\.rawValue)
    return { text in
      guard let index = words.firstIndex(of: text) else {
        throw ValidationError("must be one of: \(words.joined(separator: ", "))")
      }
      return cases[index]
    }
  }
}
