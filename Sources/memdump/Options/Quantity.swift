internal import ArgumentParser

/// A number with a unit, as options have it.
enum Quantity {
  /// Splits `text` in a number and one of `units`, and multiplies. Nil if it is not of that form.
  static func parse(_ text: String, units: [String: Double]) -> Double? {
    let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
    guard number.contains(where: \.isNumber), let value = Double(number),
      let factor = units[text.dropFirst(number.count).lowercased()]
    else { return nil }
    return value * factor
  }
}

/// A duration option.
struct DurationValue: CustomStringConvertible, Sendable {
  let nanoseconds: UInt64

  init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

  private static let units: [String: Double] = [
    "ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "min": 60e9, "h": 3600e9,
  ]

  /// Reads a duration such as `250us`, `1.5s` or `2m` that lies within `limits`.
  static func parser(_ limits: ClosedRange<UInt64>) -> @Sendable (String) throws -> DurationValue {
    { text in
      guard let value = Quantity.parse(text, units: units) else {
        throw ValidationError(
          "a duration is a number and ns, us, ms, s, m or h, such as 250us, 20ms or 1.5s")
      }
      guard value >= Double(limits.lowerBound), value <= Double(limits.upperBound) else {
        throw ValidationError(
          "must be from \(Units.duration(limits.lowerBound)) to "
            + Units.duration(limits.upperBound))
      }
      return DurationValue(nanoseconds: UInt64(value.rounded()))
    }
  }

  var description: String { Units.duration(nanoseconds) }
}

/// A size option.
struct SizeValue: CustomStringConvertible, Sendable {
  let bytes: UInt64

  init(bytes: UInt64) { self.bytes = bytes }

  private static let units: [String: Double] = [
    "": 1, "b": 1, "k": 1024, "kib": 1024, "m": 1_048_576, "mib": 1_048_576, "g": 1_073_741_824,
    "gib": 1_073_741_824, "t": 1_099_511_627_776, "tib": 1_099_511_627_776,
  ]

  /// Reads a size such as `256KiB` that lies within `limits` and is a multiple of `unit`.
  static func parser(_ limits: ClosedRange<UInt64>, multipleOf unit: UInt64)
    -> @Sendable (String) throws -> SizeValue
  {
    { text in
      guard let value = Quantity.parse(text, units: units) else {
        throw ValidationError(
          "a size is a number and KiB, MiB or GiB (K, M, G), such as 256KiB")
      }
      guard value >= Double(limits.lowerBound), value <= Double(limits.upperBound) else {
        throw ValidationError(
          "must be from \(Units.bytes(limits.lowerBound)) to \(Units.bytes(limits.upperBound))")
      }
      let bytes = UInt64(value)
      guard Double(bytes) == value, bytes % unit == 0 else {
        throw ValidationError("must be a multiple of \(Units.bytes(unit))")
      }
      return SizeValue(bytes: bytes)
    }
  }

  var description: String { Units.bytes(bytes) }
}

/// A whole-number option.
enum WholeNumber {
  /// Reads a number that lies within `limits`.
  static func parser<Value: FixedWidthInteger & Sendable>(_ limits: ClosedRange<Value>)
    -> @Sendable (String) throws -> Value
  {
    { text in
      guard let value = Value(text), limits.contains(value), !text.hasPrefix("+") else {
        throw ValidationError(
          "must be a whole number from \(limits.lowerBound) to \(limits.upperBound)")
      }
      return value
    }
  }
}
