internal import CMallocCount
internal import FoundationEssentials
internal import Kernel

/// What one benchmark measured several times.
struct Samples: Encodable {
  private(set) var values: [Double] = []

  mutating func add(_ value: Double) { values.append(value) }

  /// The middle one; the mean of the two in the middle of an even number; 0 of none.
  var median: Double {
    if values.isEmpty { return 0 }
    let sorted = values.sorted()
    return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
  }

  func encode(to encoder: any Encoder) throws { try values.encode(to: encoder) }
}

/// What one call cost.
struct Cost {
  let nanoseconds: UInt64
  /// Allocations of the whole program meanwhile.
  let mallocs: UInt64

  /// Bytes per nanosecond, which is GB/s.
  func gigabytesPerSecond(_ byteCount: Int) -> Double {
    Double(byteCount) / Double(max(nanoseconds, 1))
  }
}

/// Runs `body` and measures it.
func measure<Failure: Error>(_ body: () throws(Failure) -> Void) throws(Failure) -> Cost {
  let mallocs = malloc_count()
  let began = MonotonicClock.now
  try body()
  let ended = MonotonicClock.now
  return Cost(nanoseconds: ended - began, mallocs: malloc_count() - mallocs)
}

/// Prints a result as one line.
func report(_ result: some Encodable) {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  encoder.keyEncodingStrategy = .convertToSnakeCase
  guard let line = try? encoder.encode(result) else {
    preconditionFailure("a result that is not numbers and names")
  }
  print(String(decoding: line, as: UTF8.self))
}
