internal import CLinux
internal import Kernel

/// What the kernel takes for the first write to a page after a round has protected it: the price that
/// a dumped process pays, apart from what it loses to busy cores.
enum FirstWriteBenchmark {
  private static let byteCount = 64 << 20

  struct Result: Encodable {
    let benchmark = "first-write"
    let protectedNsPerPage: Double
    let unprotectedNsPerPage: Double
    let protectedSamples: Samples
  }

  static func run(_ repetitions: Int) throws -> Result {
    let memory = try AnonymousMemory(byteCount: byteCount)
    let bytes = memory.bytes(at: 0, count: byteCount)
    guard let base = bytes.baseAddress else {
      throw BenchmarkFailure(description: "no memory")
    }
    let pages = UInt64(byteCount) / pageBytes
    let range = PageRange(start: UInt64(UInt(bitPattern: base)), pageCount: pages)
    // Huge pages would be split by the first write to each, which is another price.
    _ = clinux_madvise(base, byteCount, 15)  // MADV_NOHUGEPAGE
    touch(bytes, 1)
    let tracking = try Userfaultfd(owning: try Userfaultfd.open(), of: "this process")
    try tracking.register(range)
    let scanner = PagemapScanner(pagemap: try File.open("/proc/self/pagemap"))
    var (first, second) = (Samples(), Samples())
    for repetition in 0..<repetitions {
      do throws(ScanFailure<Never>) {
        try scanner.scan(range, filter: .dirty, protect: true) { _ in }
      } catch { throw BenchmarkFailure(description: "PAGEMAP_SCAN: \(error)") }
      let value = UInt8(truncatingIfNeeded: repetition)
      first.add(Double(measure { touch(bytes, value) }.nanoseconds) / Double(pages))
      second.add(Double(measure { touch(bytes, value &+ 1) }.nanoseconds) / Double(pages))
    }
    try tracking.unregister(range)
    return Result(
      protectedNsPerPage: first.median, unprotectedNsPerPage: second.median,
      protectedSamples: first)
  }

  private static func touch(_ bytes: UnsafeMutableRawBufferPointer, _ value: UInt8) {
    for offset in stride(from: 0, to: bytes.count, by: Int(pageBytes)) {
      bytes.storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
    }
  }
}
