internal import Kernel

/// The digests of one stream by block, for reading that skips blocks which newer rounds replace.
struct BlockDigests: ~Copyable {
  /// Pages per digest.
  let pagesPerBlock: Int
  private var cursor: DigestCursor
  /// Digests of the entries before the current one.
  private var passed: UInt64 = 0
  /// Digests taken from the cursor, and the last of them.
  private var taken: UInt64 = 0
  private var last: UInt64?

  /// Opens the digests that `record`, the round's own, has of `stream`.
  init(_ record: RoundRecord, stream: ImageStream, in directory: borrowing Directory)
    throws(ImageError)
  {
    pagesPerBlock = record.compression.blockPages
    cursor = try DigestCursor(record, stream, in: directory)
  }

  /// Leaves an entry with pages behind.
  mutating func passEntry(pageCount: UInt64) {
    passed &+= (pageCount - 1) / UInt64(pagesPerBlock) + 1
  }

  /// Goes back to before the first entry.
  mutating func rewind() {
    cursor.rewind()
    (passed, taken, last) = (0, 0, nil)
  }

  /// Whether `bytes` are those of block `index` of the current entry as it was dumped.
  mutating func matches(
    block index: Int, of entry: PagemapEntry, _ bytes: UnsafeMutableRawBufferPointer
  ) throws(ImageError) -> Bool {
    if entry.hasBlocks && entry.pagesPerBlock != pagesPerBlock { return false }
    let wanted = passed &+ UInt64(index)
    if wanted &+ 1 < taken {
      cursor.rewind()
      (taken, last) = (0, nil)
    }
    while taken <= wanted {
      guard let digest = try cursor.advance() else { return false }
      last = digest
      taken += 1
    }
    guard let base = bytes.baseAddress else { return false }
    return blockDigest(base, count: bytes.count) == last
  }
}
