import CDigest
import Testing

#if arch(x86_64)
  @Suite struct DigestTests {
    /// Every path of XXH3: up to 16, 128, 240 bytes, one block of stripes, several.
    private static let lengths = [0, 1, 3, 8, 16, 17, 128, 129, 240, 241, 1024, 4096, 100_003]

    @Test("AVX2 gives the digests that libxxhash gives", arguments: lengths)
    func agreement(length: Int) throws {
      try #require(cdigest_has_avx2(), "this needs a processor with AVX2")
      let bytes = (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8) }
      let fast = try digests(bytes, cdigest_avx2)
      #expect(fast == (try digests(bytes, cdigest_portable)))
      // At once and piece by piece.
      #expect(Array(fast[1...2]) == Array(fast[3...4]))
    }

    /// The words of the digest of 64 bits, that of 128, and that of 128 made piece by piece.
    private func digests(_ bytes: [UInt8], _ way: cdigest_implementation) throws -> [UInt64] {
      let short = try #require(way.digest_64)
      let long = try #require(way.digest_128)
      let add = try #require(way.add)
      let value = try #require(way.value)
      let state = try #require(way.create?())
      defer { way.free?(state) }
      for start in stride(from: 0, to: bytes.count, by: 999) {
        let piece = Array(bytes[start..<min(start + 999, bytes.count)])
        add(state, piece, piece.count)
      }
      let (whole, pieces) = (long(bytes, bytes.count), value(state))
      return [short(bytes, bytes.count), whole.low, whole.high, pieces.low, pieces.high]
    }
  }
#endif
