internal import CLZ4
internal import Glibc

/// Turns the stored form of a block into its pages.
enum BlockDecoder {
  /// Decodes `stored` into the whole of `target`. False if it does not decode to exactly that many
  /// bytes. The caller has checked that `stored` is not longer than `target`.
  static func decode(_ stored: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer)
    -> Bool
  {
    guard let output = target.baseAddress else { return stored.isEmpty }
    guard let input = stored.baseAddress, !stored.isEmpty else {
      memset(output, 0, target.count)
      return true
    }
    if stored.count == target.count {
      output.copyMemory(from: input, byteCount: stored.count)
      return true
    }
    let count = LZ4_decompress_safe(
      input.assumingMemoryBound(to: CChar.self), output.assumingMemoryBound(to: CChar.self),
      CInt(stored.count), CInt(target.count))
    return Int(count) == target.count
  }
}
