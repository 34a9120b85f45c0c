internal import Images
internal import Kernel

/// `Chunk.appendPresent` and `Chunk.encode`: digest, zero test and LZ4, on one thread.
enum EncodeBenchmark {
  struct Result: Encodable {
    let benchmark = "encode"
    let rows: [Row]
  }

  struct Row: Encodable {
    let data: String
    let segmentPages: Int
    let encodeGbPerSecond: Double
    let appendGbPerSecond: Double
    /// Of one chunk of 256 pages that is filled, encoded and reset.
    let mallocsPerChunk: Double
  }

  /// What pages hold. As the tests' workload: 64 bytes that repeat, 64 that do not.
  private enum Contents: String, CaseIterable {
    case halfCompressible = "half-compressible"
    case zero, random

    func fill(_ words: UnsafeMutableBufferPointer<UInt64>) {
      var state: UInt64 = 7
      for index in words.indices {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        let noise = (state ^ state >> 29) &* 0x9e37_79b9_7f4a_7c15
        switch self {
        case .halfCompressible: words[index] = index & 8 == 0 ? 0x2070_6d75_646d_656d : noise
        case .zero: words[index] = 0
        case .random: words[index] = noise
        }
      }
    }
  }

  private static let chunksPerRepetition = 64

  static func run(_ repetitions: Int) -> Result {
    var rows: [Row] = []
    for contents in Contents.allCases {
      for pages in [64, 1] { rows.append(row(contents, segmentPages: pages, repetitions)) }
    }
    return Result(rows: rows)
  }

  private static func row(_ contents: Contents, segmentPages: Int, _ repetitions: Int) -> Row {
    let chunk = Chunk(compression: .standard)
    let byteCount = Chunk.standardPages * Int(pageBytes)
    let source = UnsafeMutableBufferPointer<UInt64>.allocate(capacity: byteCount / 8)
    defer { source.deallocate() }
    contents.fill(source)
    let bytes = UnsafeRawBufferPointer(source)
    var (encode, append) = (Samples(), Samples())
    var mallocs: UInt64 = 0
    for repetition in 0...repetitions {
      var (encodeTime, appendTime): (UInt64, UInt64) = (0, 0)
      mallocs = 0
      for _ in 0..<chunksPerRepetition {
        let appendCost = measure { fill(chunk, from: bytes, segmentPages) }
        let encodeCost = measure { chunk.encode() }
        appendTime += appendCost.nanoseconds
        encodeTime += encodeCost.nanoseconds
        mallocs += appendCost.mallocs + encodeCost.mallocs
      }
      if repetition == 0 { continue }
      let total = Double(byteCount * chunksPerRepetition)
      encode.add(total / Double(encodeTime))
      append.add(total / Double(appendTime))
    }
    return Row(
      data: contents.rawValue, segmentPages: segmentPages, encodeGbPerSecond: encode.median,
      appendGbPerSecond: append.median,
      mallocsPerChunk: Double(mallocs) / Double(chunksPerRepetition))
  }

  /// Segments that never touch, as scattered dirty pages are.
  private static func fill(_ chunk: Chunk, from bytes: UnsafeRawBufferPointer, _ segmentPages: Int)
  {
    chunk.reset()
    let segmentBytes = segmentPages * Int(pageBytes)
    for offset in stride(from: 0, to: bytes.count, by: segmentBytes) {
      let piece = UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + segmentBytes)])
      // The read cannot fail: it copies from our own memory.
      let taken = try? chunk.appendPresent(
        start: UInt64(2 * offset), pageLimit: segmentPages, flags: .present
      ) { (room) throws(KernelError) in
        room.copyMemory(from: piece)
        return segmentPages
      }
      precondition(taken == segmentPages)
    }
  }
}
