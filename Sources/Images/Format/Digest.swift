internal import CXXHash
internal import Kernel
internal import SystemPackage

/// An XXH3 digest of 128 bits. It finds accidents, not forgeries.
public struct Digest128: Sendable, Hashable, CustomStringConvertible {
  /// The upper 64 bits.
  public let high: UInt64
  /// The lower 64 bits.
  public let low: UInt64

  /// Takes a digest apart already.
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// 32 hexadecimal digits.
  public var description: String { Self.hex(high) + Self.hex(low) }

  private static func hex(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}

/// The XXH3-64 digest of a block's decoded bytes.
@inline(__always)
func blockDigest(_ bytes: UnsafeRawPointer, count: Int) -> UInt64 { XXH3_64bits(bytes, count) }

/// The XXH3-128 digest of the page at `page`, 4096 bytes.
package func pageDigest(_ page: UnsafeRawPointer) -> Digest128 {
  let hash = XXH3_128bits(page, ImageFormat.page)
  return Digest128(high: hash.high64, low: hash.low64)
}

/// An XXH3-128 digest of bytes that come piece by piece.
struct RunningDigest: ~Copyable {
  // The C state is never handed out, so it lives exactly as long as this value.
  private let state: OpaquePointer

  /// A digest of no bytes.
  ///
  /// - Throws: ENOMEM if there is no memory for the C state (600 bytes).
  init() throws(KernelError) {
    guard let state = XXH3_createState() else {
      throw KernelError(call: "XXH3_createState", subject: "digest", errno: .noMemory)
    }
    XXH3_128bits_reset(state)
    self.state = state
  }

  deinit { XXH3_freeState(state) }

  /// Adds bytes.
  mutating func add(_ bytes: UnsafeRawBufferPointer) {
    guard let base = bytes.baseAddress else { return }
    XXH3_128bits_update(state, base, bytes.count)
  }

  /// The digest of all bytes so far.
  var value: Digest128 {
    let hash = XXH3_128bits_digest(state)
    return Digest128(high: hash.high64, low: hash.low64)
  }
}
