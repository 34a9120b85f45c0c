internal import Kernel

/// Room for the pages of one chunk. Allocated once; it goes from chunk to chunk, so that a processor
/// reads into what is in its cache.
///
/// Sendable because exactly one chunk or thread has it at a time.
package final class ChunkBuffers: @unchecked Sendable {
  /// Pages as they were read, without gaps.
  let raw: UnsafeMutableRawBufferPointer
  /// Compressed blocks; empty where nothing is compressed.
  let encoded: UnsafeMutableRawBufferPointer
  /// For a block of each page.
  let blockTable: UnsafeMutablePointer<Chunk.Block>

  /// Allocates 512 KiB for pages or a block, whichever is longer, and as much again for compressed
  /// bytes.
  package init(_ compression: PageCompression) {
    let pages = Self.pageCapacity(compression)
    let bytes = pages * ImageFormat.page
    raw = .allocate(byteCount: bytes, alignment: ImageFormat.page)
    encoded = .allocate(
      byteCount: compression.isCompressed ? bytes : 0, alignment: ImageFormat.page)
    blockTable = .allocate(capacity: pages)
  }

  deinit {
    raw.deallocate()
    encoded.deallocate()
    blockTable.deallocate()
  }

  /// Pages that fit into a chunk of so compressed ones.
  static func pageCapacity(_ compression: PageCompression) -> Int {
    max(Chunk.standardPages, compression.blockPages)
  }

  /// The memory that they take at most, but for a few KiB (bytes).
  package static func byteCount(_ compression: PageCompression) -> UInt64 {
    UInt64(pageCapacity(compression)) * pageBytes * (compression.isCompressed ? 2 : 1)
  }
}
