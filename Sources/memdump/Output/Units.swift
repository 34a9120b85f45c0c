internal import Kernel

/// Numbers as people read them. What is printed here is also accepted as an option's value.
enum Units {
  /// A duration with three digits, such as `48.2ms`.
  static func duration(_ nanoseconds: UInt64) -> String {
    let value = Double(nanoseconds)
    if value >= 120e9 { return decimal(value / 60e9) + "m" }
    if value >= 1e9 { return decimal(value / 1e9) + "s" }
    if value >= 1e6 { return decimal(value / 1e6) + "ms" }
    if value >= 1e3 { return decimal(value / 1e3) + "us" }
    return "\(nanoseconds)ns"
  }

  /// A size with three digits, such as `1.25GiB`.
  static func bytes(_ count: UInt64) -> String { bytes(Double(count)) }

  /// A rate in bytes a second.
  static func rate(_ bytesPerSecond: Double) -> String { bytes(bytesPerSecond) + "/s" }

  /// Bytes a second; nil if nothing took no time.
  static func perSecond(_ count: UInt64, in nanoseconds: UInt64) -> Double? {
    nanoseconds == 0 ? nil : Double(count) / (Double(nanoseconds) / 1e9)
  }

  /// How many times smaller `out` is; nil if there is nothing to compare.
  static func ratio(_ bytesIn: UInt64, _ out: UInt64) -> Double? {
    out == 0 || bytesIn == 0 ? nil : Double(bytesIn) / Double(out)
  }

  /// A ratio such as `2.13x`; a dash without one.
  static func ratioText(_ bytesIn: UInt64, _ out: UInt64) -> String {
    ratio(bytesIn, out).map { decimal($0) + "x" } ?? "-"
  }

  /// A count with a comma before each three digits.
  static func count(_ value: UInt64) -> String {
    var text = ""
    for (index, digit) in String(value).reversed().enumerated() {
      if index > 0 && index % 3 == 0 { text.append(",") }
      text.append(digit)
    }
    return String(text.reversed())
  }

  /// A count with its noun.
  static func count(_ value: UInt64, _ noun: String) -> String {
    "\(count(value)) \(noun)\(value == 1 ? "" : noun.hasSuffix("s") ? "es" : "s")"
  }

  /// Pages as bytes.
  static func pages(_ count: UInt64) -> String { bytes(Double(count) * Double(pageBytes)) }

  private static func bytes(_ count: Double) -> String {
    var value = count
    var unit = 0
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while value >= 1000 && unit + 1 < units.count {
      value /= 1024
      unit += 1
    }
    return (unit == 0 ? String(UInt64(value)) : decimal(value)) + units[unit]
  }

  /// Three significant digits at most, no zeros at the end of a fraction.
  private static func decimal(_ value: Double) -> String {
    let digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0
    let scale: Double = digits == 2 ? 100 : digits == 1 ? 10 : 1
    let scaled = UInt64((value * scale).rounded())
    guard digits > 0 else { return String(scaled) }
    let (whole, rest) = scaled.quotientAndRemainder(dividingBy: UInt64(scale))
    var fraction = String(rest).paddedWithZeros(to: digits)
    while fraction.last == "0" { fraction.removeLast() }
    return fraction.isEmpty ? String(whole) : "\(whole).\(fraction)"
  }
}

extension String {
  fileprivate func paddedWithZeros(to width: Int) -> String {
    String(repeating: "0", count: max(0, width - count)) + self
  }
}
