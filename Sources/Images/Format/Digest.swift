internal import CDigest
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
func blockDigest(_ bytes: UnsafeRawPointer, count: Int) -> UInt64 { cdigest_64(bytes, count) }

/// The XXH3-128 digest of the page at `page`, 4096 bytes.
package func pageDigest(_ page: UnsafeRawPointer) -> Digest128 {
  Digest128(cdigest_128(page, ImageFormat.page))
}

/// An XXH3-128 digest of bytes that come piece by piece.
struct RunningDigest: ~Copyable {
  // The C state is never handed out, so it lives exactly as long as this value.
  private let state: OpaquePointer

  /// A digest of no bytes.
  ///
  /// - Throws: ENOMEM if there is no memory for the C state (600 bytes).
  init() throws(KernelError) {
    guard let state = cdigest_create() else {
      throw KernelError(call: "XXH3_createState", subject: "digest", errno: .noMemory)
    }
    self.state = state
  }

  deinit { cdigest_free(state) }

  /// Adds bytes.
  mutating func add(_ bytes: UnsafeRawBufferPointer) {
    guard let base = bytes.baseAddress else { return }
    cdigest_add(state, base, bytes.count)
  }

  /// The digest of all bytes so far.
  var value: Digest128 { Digest128(cdigest_value(state)) }
}

extension Digest128 {
  fileprivate init(_ digest: cdigest_128) { self.init(high: digest.high, low: digest.low) }
}
