import CDigest
import Testing

@Suite struct DigestTests {
  /// Every path of XXH3: up to 16, 128, 240 bytes, one block of stripes, several.
  private static let lengths = [0, 1, 3, 8, 16, 17, 128, 129, 240, 241, 1024, 4096, 100_003]

  #if arch(x86_64)
    @Test("AVX2 gives the digests that libxxhash gives", arguments: lengths)
    func agreement(length: Int) throws {
      try #require(cdigest_has_avx2(), "this needs a processor with AVX2")
      let bytes = (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8) }
      try bytes.withUnsafeBytes { bytes in
        #expect(
          try #require(cdigest_avx2.digest_64)(bytes.baseAddress, length)
            == #require(cdigest_portable.digest_64)(bytes.baseAddress, length))
        let whole = try #require(cdigest_portable.digest_128)(bytes.baseAddress, length)
        #expect(
          isSame(try #require(cdigest_avx2.digest_128)(bytes.baseAddress, length), whole))
        #expect(isSame(try inPieces(bytes, cdigest_avx2), whole))
        #expect(isSame(try inPieces(bytes, cdigest_portable), whole))
      }
    }
  #endif

  private func inPieces(_ bytes: UnsafeRawBufferPointer, _ way: cdigest_implementation) throws
    -> cdigest_128
  {
    let state = try #require(try #require(way.create)())
    defer { way.free?(state) }
    for start in stride(from: 0, to: bytes.count, by: 999) {
      let piece = bytes[start..<min(start + 999, bytes.count)]
      try #require(way.add)(state, UnsafeRawBufferPointer(rebasing: piece).baseAddress, piece.count)
    }
    return try #require(way.value)(state)
  }

  private func isSame(_ one: cdigest_128, _ other: cdigest_128) -> Bool {
    one.low == other.low && one.high == other.high
  }
}
