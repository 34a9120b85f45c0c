internal import Images

extension RoundTotals {
  /// The sums of a round's pagemaps.
  init(_ round: RoundContents) {
    self.init()
    for stream in round.streams {
      pagesStored += stream.pagesStored
      pagesZero += stream.pagesZero
      pagesFromParent += stream.pagesFromParent
      payloadBytes += stream.payloadBytes
    }
  }
}

extension RoundContents {
  /// How pages are stored: `lz4`, `plain`, or `criu` for images that memdump did not write.
  var format: String {
    guard let record else { return "criu" }
    return record.compression == .none ? "plain" : "lz4"
  }
}

extension VMARecord {
  /// The protection as `/proc/PID/maps` has it, such as `rw-`.
  var protectionText: String {
    (protection & 1 != 0 ? "r" : "-") + (protection & 2 != 0 ? "w" : "-")
      + (protection & 4 != 0 ? "x" : "-")
  }
}

extension String {
  /// The text without control characters, which a path of the dumped process may hold.
  var printable: String {
    let scalars = unicodeScalars.map { scalar -> Unicode.Scalar in
      scalar.value < 0x20 || scalar.value == 0x7f ? "?" : scalar
    }
    return String(String.UnicodeScalarView(scalars))
  }
}

extension Units {
  /// A duration in microseconds.
  static func duration(microseconds: UInt64) -> String {
    let (nanoseconds, overflow) = microseconds.multipliedReportingOverflow(by: 1000)
    return duration(overflow ? .max : nanoseconds)
  }
}
