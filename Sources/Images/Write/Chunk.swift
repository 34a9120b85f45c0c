internal import CLZ4
internal import Glibc
package import Kernel

/// A batch of consecutive segments and the bytes of its present pages, on its way from the engine
/// to the writer. `reset()` makes it empty again.
///
/// ```
/// segments  [P 3 pages][parent][P 70 pages            ]
/// raw       | 3 pages ||       64 pages     | 6 pages |     as read from the process
/// blocks    |    0    ||          1         |    2    |     never across segments
/// encoded   |lz4|   lz4   |                                 raw and zero blocks take nothing here
/// ```
///
/// Sendable because exactly one stage of the pipeline holds a chunk at a time: the queue that hands
/// it on orders the accesses.
package final class Chunk: @unchecked Sendable {
  /// A block of a segment, as stored.
  struct Block {
    /// XXH3-64 of the decoded bytes.
    var digest: UInt64
    /// Where the decoded bytes are in `raw`.
    var rawOffset: Int
    /// Where the compressed bytes are in `encoded`.
    var encodedOffset: Int
    /// Decoded length (bytes).
    var byteCount: Int
    /// Stored length (bytes): 0 is all zero, `byteCount` is raw.
    var storedCount: Int
  }

  /// Segments that fit into a chunk.
  package static let segmentCapacity = 1024
  /// Pages that fit into a chunk, unless a block is longer: what was read is still in the core's own
  /// cache (1 MiB and more) when it is compressed, and what was compressed when it is written.
  package static let standardPages = 128

  /// How the pages will be stored.
  package let compression: PageCompression
  /// Pages in a block.
  package let blockPages: Int
  /// Pages that fit.
  package let pageCapacity: Int
  /// The position in the stream; the engine's to use.
  package var sequence = 0
  /// Whether it had its buffers before an encoder had it; the engine's to use.
  package var isFilledEarly = false
  /// The runs, ascending.
  private(set) var segments: [Segment] = []
  /// The blocks of all present segments, in order; valid after `encode()`.
  private(set) var blockCount = 0

  private var pageCount = 0
  /// The runs as they were planned, while `load` makes `segments` anew.
  private var planned: [Segment] = []
  /// By number of pages.
  private var zeroDigests: [UInt64?]
  private var refused = false
  /// Where the pages go; nil while they are only planned.
  private var buffers: ChunkBuffers?

  /// - Parameter buffers: nil for a chunk that gets them when its planned pages are read.
  package init(compression: PageCompression, buffers: ChunkBuffers?) {
    self.compression = compression
    blockPages = compression.blockPages
    pageCapacity = ChunkBuffers.pageCapacity(compression)
    zeroDigests = Array(repeating: nil, count: blockPages + 1)
    self.buffers = buffers
    segments.reserveCapacity(Self.segmentCapacity)
    planned.reserveCapacity(Self.segmentCapacity)
  }

  /// A chunk with buffers of its own.
  package convenience init(compression: PageCompression) {
    self.init(compression: compression, buffers: ChunkBuffers(compression))
  }

  /// Whether there is room for the pages' bytes.
  package var hasBuffers: Bool { buffers != nil }

  /// Takes the room for the pages' bytes, of a chunk that has none.
  package func attach(_ buffers: ChunkBuffers) { self.buffers = buffers }

  /// Gives up the room for the pages' bytes.
  package func detach() -> ChunkBuffers? { buffers.take() }

  private var raw: UnsafeMutableRawBufferPointer {
    buffers?.raw ?? UnsafeMutableRawBufferPointer(start: nil, count: 0)
  }

  /// Makes the chunk empty.
  package func reset() {
    segments.removeAll(keepingCapacity: true)
    blockCount = 0
    pageCount = 0
    refused = false
  }

  /// Whether nothing was added.
  package var isEmpty: Bool { segments.isEmpty }

  /// Whether the next append would find no room: flush, reset, and go on where it stopped.
  ///
  /// Also true after an append that took nothing because what is left is shorter than a block.
  package var isFull: Bool {
    refused || pageCount == pageCapacity || segments.count == Self.segmentCapacity
  }

  /// Pages that still fit.
  package var freePages: Int { pageCapacity - pageCount }

  /// Bytes of the present pages as they were read.
  var rawBytes: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: raw[..<(pageCount * ImageFormat.page)])
  }

  /// The blocks of all present segments, in order; valid after `encode()` and until `reset()`.
  var blocks: UnsafeBufferPointer<Block> {
    UnsafeBufferPointer(start: buffers?.blockTable, count: blockCount)
  }

  /// The stored bytes of a block.
  func storedBytes(_ block: Block) -> UnsafeRawBufferPointer {
    guard let buffers else { return UnsafeRawBufferPointer(start: nil, count: 0) }
    let isRaw = block.storedCount == block.byteCount
    let start = isRaw ? block.rawOffset : block.encodedOffset
    return UnsafeRawBufferPointer(
      rebasing: (isRaw ? buffers.raw : buffers.encoded)[start..<(start + block.storedCount)])
  }

  /// Adds a run, of any length, that the round takes from its parent. False if there is no room:
  /// flush and retry.
  package func appendParent(_ range: PageRange) -> Bool {
    if range.isEmpty { return true }
    if let last = segments.last, last.flags == .parent, last.end == range.start {
      segments[segments.count - 1].pageCount += range.pageCount
      return true
    }
    if segments.count == Self.segmentCapacity {
      refused = true
      return false
    }
    segments.append(Segment(start: range.start, pageCount: range.pageCount, flags: .parent))
    return true
  }

  /// Adds up to `pageLimit` present pages from `start` on.
  ///
  /// A run that does not fit is cut at a multiple of the block length, so that the writer can join
  /// its pieces again. `read` fills whole pages from the buffer's start and returns how many, which
  /// may be fewer than there is room for, also 0.
  /// - Returns: pages taken. After 0, `isFull` tells "no room" from "nothing read".
  /// - Throws: what `read` throws; the chunk is then as it was.
  package func appendPresent(
    start: UInt64, pageLimit: Int, flags: PagemapFlags,
    read: (UnsafeMutableRawBufferPointer) throws(KernelError) -> Int
  ) throws(KernelError) -> Int {
    let pages = room(for: pageLimit)
    if pages == 0 { return 0 }
    let offset = pageCount * ImageFormat.page
    let room = raw[offset..<(offset + pages * ImageFormat.page)]
    let filled = try read(UnsafeMutableRawBufferPointer(rebasing: room))
    precondition(filled >= 0 && filled <= pages, "read filled \(filled) of \(pages) pages")
    if filled == 0 { return 0 }
    segments.append(Segment(start: start, pageCount: UInt64(filled), flags: flags))
    pageCount += filled
    return filled
  }

  /// Adds up to `pageLimit` present pages from `start` on, to be read by `load`.
  ///
  /// - Returns: pages taken; 0 if there is no room.
  package func appendPlanned(start: UInt64, pageLimit: Int, flags: PagemapFlags) -> Int {
    let pages = room(for: pageLimit)
    if pages == 0 { return 0 }
    segments.append(Segment(start: start, pageCount: UInt64(pages), flags: flags))
    pageCount += pages
    return pages
  }

  /// Reads all present pages, which must be planned ones, and leaves out those that cannot be read.
  ///
  /// - Parameters:
  ///   - missing: told of the pages that are left out, ascending.
  ///   - read: fills whole pages from the buffer's start, as `ProcessMemory.readPages`.
  /// - Throws: what `read` throws; the chunk is good for `reset` alone then.
  package func load(
    missing: (PageRange) -> Void,
    read: (UInt64, UnsafeMutableRawBufferPointer) throws(KernelError) -> ProcessMemory.ReadResult
  ) throws(KernelError) {
    swap(&planned, &segments)
    segments.removeAll(keepingCapacity: true)
    pageCount = 0
    for segment in planned {
      guard segment.flags.contains(.present) else {
        segments.append(segment)
        continue
      }
      var position = segment.start
      var left = Int(segment.pageCount)
      while left > 0 {
        let offset = pageCount * ImageFormat.page
        let room = raw[offset..<(offset + left * ImageFormat.page)]
        var taken = 0
        var skipped = left
        if case .pages(let count) = try read(
          position, UnsafeMutableRawBufferPointer(rebasing: room))
        {
          taken = count
          skipped = count < left ? 1 : 0
        }
        if taken > 0 {
          segments.append(
            Segment(start: position, pageCount: UInt64(taken), flags: segment.flags))
        }
        pageCount += taken
        position += UInt64(taken) * pageBytes
        if skipped > 0 { missing(PageRange(start: position, pageCount: UInt64(skipped))) }
        position += UInt64(skipped) * pageBytes
        left -= taken + skipped
      }
    }
  }

  /// Takes present pages, whose bytes are in the chunk, from the parent instead where `isInParent` says
  /// so. It is asked once for each present page, ascending, with the page's address and bytes.
  ///
  /// - Parameter unchanged: told of the pages that are taken from the parent. A few stay present if
  ///   the runs fall to more pieces than there is room for.
  package func replaceUnchanged(
    _ isInParent: (UInt64, UnsafeRawPointer) -> Bool, unchanged: (UInt64) -> Void
  ) {
    guard let base = raw.baseAddress else { return }
    swap(&planned, &segments)
    segments.removeAll(keepingCapacity: true)
    pageCount = 0
    var source = 0
    for (index, segment) in planned.enumerated() {
      guard segment.flags.contains(.present) else {
        _ = appendParent(PageRange(start: segment.start, pageCount: segment.pageCount))
        continue
      }
      // A parent's segment, a present one behind it, and what is still to come.
      let room = Self.segmentCapacity - 2 - (planned.count - index - 1)
      var isOpen = false
      for page in 0..<segment.pageCount {
        let address = segment.start + page * pageBytes
        let bytes = base + source * ImageFormat.page
        source += 1
        if isInParent(address, bytes), segments.count <= room {
          _ = appendParent(PageRange(start: address, pageCount: 1))
          unchanged(address)
          isOpen = false
          continue
        }
        if isOpen {
          segments[segments.count - 1].pageCount += 1
        } else {
          segments.append(Segment(start: address, pageCount: 1, flags: segment.flags))
          isOpen = true
        }
        // What is kept moves up, so that present pages lie one behind the other.
        if pageCount != source - 1 {
          memmove(base + pageCount * ImageFormat.page, bytes, ImageFormat.page)
        }
        pageCount += 1
      }
    }
  }

  /// The first address of the first run; nil if there is none.
  package var start: UInt64? { segments.first?.start }

  /// How many of so many pages fit: all, or whole blocks.
  private func room(for pageLimit: Int) -> Int {
    if pageLimit <= 0 { return 0 }
    var pages = min(pageLimit, freePages)
    if pages < pageLimit { pages -= pages % blockPages }
    if pages == 0 || segments.count == Self.segmentCapacity {
      refused = true
      return 0
    }
    return pages
  }

  /// Cuts the present pages into blocks, digests them, and finds the stored form of each.
  ///
  /// For one thread at a time; allocates nothing. Call it once, after the last append.
  package func encode() {
    blockCount = 0
    guard let buffers else { return }
    var rawOffset = 0
    var encodedOffset = 0
    for segment in segments where segment.flags.contains(.present) {
      var left = Int(segment.pageCount)
      while left > 0 {
        let pages = min(left, blockPages)
        encodeBlock(
          buffers, rawOffset: rawOffset, byteCount: pages * ImageFormat.page,
          encodedOffset: &encodedOffset)
        rawOffset += pages * ImageFormat.page
        left -= pages
      }
    }
  }

  /// The digest of so many zeros; computed once for each length.
  private func zeroDigest(byteCount: Int) -> UInt64 {
    let pages = byteCount / ImageFormat.page
    if let known = zeroDigests[pages] { return known }
    let zeros = [UInt8](repeating: 0, count: byteCount)
    let digest = zeros.withUnsafeBytes { bytes in
      bytes.baseAddress.map { blockDigest($0, count: byteCount) } ?? 0
    }
    zeroDigests[pages] = digest
    return digest
  }

  private func encodeBlock(
    _ buffers: ChunkBuffers, rawOffset: Int, byteCount: Int, encodedOffset: inout Int
  ) {
    guard let base = buffers.raw.baseAddress else { return }
    let bytes = UnsafeRawPointer(base + rawOffset)
    // Zeros are told by their first words, everything else too: the digest of zeros is known.
    let isZeros = isZero(bytes, count: byteCount)
    let digest =
      isZeros ? zeroDigest(byteCount: byteCount) : blockDigest(bytes, count: byteCount)
    var block = Block(
      digest: digest, rawOffset: rawOffset, encodedOffset: encodedOffset, byteCount: byteCount,
      storedCount: byteCount)
    if let target = buffers.encoded.baseAddress, compression.isCompressed {
      if isZeros {
        block.storedCount = 0
      } else {
        // CRIU stores a block raw from 7/8 of its length on. One byte less as capacity makes LZ4
        // give up as soon as it cannot get there.
        let size = LZ4_compress_fast(
          bytes.assumingMemoryBound(to: CChar.self),
          (target + encodedOffset).assumingMemoryBound(to: CChar.self), CInt(byteCount),
          CInt(byteCount / 8 * 7 - 1), CInt(compression.acceleration))
        if size > 0 {
          block.storedCount = Int(size)
          encodedOffset += Int(size)
        }
      }
    }
    (buffers.blockTable + blockCount).initialize(to: block)
    blockCount += 1
  }
}

/// Whether `count` bytes, a multiple of 64, are all zero.
func isZero(_ bytes: UnsafeRawPointer, count: Int) -> Bool {
  if count == 0 { return true }
  if bytes.loadUnaligned(as: SIMD8<UInt64>.self) != .zero { return false }
  // Zero if all of it equals what is 64 bytes before, which the C library compares as fast as the
  // processor can.
  return memcmp(bytes, bytes + 64, count - 64) == 0
}
