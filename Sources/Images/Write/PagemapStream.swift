internal import CCRIUImages
internal import Kernel

/// Writes one pagemap and its pages file: a process's, or a shared memory object's.
///
/// Adjacent segments with the same flags become one entry as long as what is there ends at a block
/// boundary, because blocks never span entries.
struct PagemapStream: ~Copyable {
  /// What a segment's flags may be.
  private static let permitted: [PagemapFlags] = [.parent, .present, .presentLazily]

  /// Whose pages they are.
  let stream: ImageStream
  private let compression: PageCompression
  private var pagemap: RecordWriter
  private var payload: PayloadWriter
  private var open: OpenEntry
  private var isOpen = false
  /// Where the last segment ended: the lowest address that may come next.
  private var end: UInt64 = 0
  private(set) var totals = RoundTotals()

  /// Stored blocks of a chunk that lie one behind the other, to be written as one. It holds pointers
  /// into the chunk, and none outlives the call that appends that.
  private struct StoredRun {
    private(set) var bytes = UnsafeRawBufferPointer(start: nil, count: 0)
    private var isRaw = false

    init() {}

    init(_ bytes: UnsafeRawBufferPointer, isRaw: Bool) { (self.bytes, self.isRaw) = (bytes, isRaw) }

    /// Takes a block that begins where this ends, in the same of the chunk's two buffers.
    mutating func extend(_ next: UnsafeRawBufferPointer, isRaw: Bool) -> Bool {
      guard let base = bytes.baseAddress, base + bytes.count == next.baseAddress,
        isRaw == self.isRaw
      else { return false }
      bytes = UnsafeRawBufferPointer(start: base, count: bytes.count + next.count)
      return true
    }
  }

  /// An entry that may still grow.
  private struct OpenEntry {
    var segment: Segment
    /// Stored bytes of each block.
    var blockSizes: [UInt32]
    var payloadBytes: UInt64 = 0
    var allRaw = true

    init() {
      segment = Segment(start: 0, pageCount: 0, flags: [])
      blockSizes = []
    }
  }

  /// Creates the stream's pagemap and `pages-<pagesID>.img`.
  ///
  /// - Parameter sync: whether `finish` will be asked to make them survive a power cut.
  init(
    _ stream: ImageStream, in directory: borrowing some ImageFolder & ~Copyable, pagesID: UInt32,
    compression: PageCompression, sync: Bool
  ) throws(ImageError) {
    var pagemap = try RecordWriter(
      stream.pagemapName, in: directory, magics: [ImageFormat.common, ImageFormat.pagemap])
    let payload = try PayloadWriter(
      ImageFormat.pagesName(pagesID), in: directory, sync: sync)
    var head = Criu__PagemapHead()
    criu__pagemap_head__init(&head)
    head.pages_id = pagesID
    try pagemap.append(head)
    self.pagemap = pagemap
    self.payload = payload
    self.stream = stream
    self.compression = compression
    open = OpenEntry()
  }

  /// Appends a chunk's segments and pages.
  mutating func append(_ chunk: Chunk) throws(ImageError) {
    let blocks = chunk.blocks
    var next = 0
    var run = StoredRun()
    for segment in chunk.segments {
      try check(segment)
      if segment.flags.contains(.present) {
        let count = (Int(segment.pageCount) + chunk.blockPages - 1) / chunk.blockPages
        guard next + count <= blocks.count else {
          throw ImageError(
            .misuse, file: pagemap.path, address: segment.start, "the chunk was not encoded")
        }
        try begin(segment)
        try appendBlocks(blocks, from: next, count: count, of: chunk, &run)
        next += count
        totals.pagesStored += segment.pageCount
      } else {
        try begin(segment)
        totals.pagesFromParent += segment.pageCount
      }
    }
    try flush(&run)
    // Plain payload is the chunk's bytes as they are: one write.
    if !compression.isCompressed { try payload.append(chunk.rawBytes) }
    totals.payloadBytes = payload.byteCount
  }

  /// Ends both files. The stream takes nothing more after it.
  mutating func finish(sync: Bool) throws(ImageError) -> [FileDigest] {
    try closeEntry()
    return [try pagemap.finish(sync: sync), try payload.finish(sync: sync)]
  }

  private mutating func check(_ segment: Segment) throws(ImageError) {
    guard segment.start % pageBytes == 0, segment.pageCount > 0, let segmentEnd = segment.end else {
      throw ImageError(
        .misuse, file: pagemap.path, address: segment.start,
        "a run of \(segment.pageCount) pages is no whole part of an address space")
    }
    guard segment.start >= end else {
      throw ImageError(
        .misuse, file: pagemap.path, address: segment.start,
        "runs must ascend, and the last one ended at \(hexAddress(end))")
    }
    guard Self.permitted.contains(segment.flags) else {
      throw ImageError(
        .misuse, file: pagemap.path, address: segment.start,
        "flags \(segment.flags.rawValue) are neither of the parent nor present and perhaps lazy")
    }
    end = segmentEnd
  }

  /// Joins the segment to the open entry, or opens one for it.
  private mutating func begin(_ segment: Segment) throws(ImageError) {
    if isOpen, canJoin(segment) {
      open.segment.pageCount += segment.pageCount
      return
    }
    try closeEntry()
    open.segment = segment
    isOpen = true
  }

  private func canJoin(_ segment: Segment) -> Bool {
    guard open.segment.end == segment.start else { return false }
    if segment.flags == .parent { return open.segment.flags == .parent }
    return open.segment.flags.subtracting(.payloadAligned) == segment.flags
      && open.segment.pageCount % UInt64(compression.blockPages) == 0
      && open.segment.pageCount + segment.pageCount <= ImageFormat.entryPageLimit
  }

  private mutating func appendBlocks(
    _ blocks: UnsafeBufferPointer<Chunk.Block>, from first: Int, count: Int, of chunk: Chunk,
    _ run: inout StoredRun
  ) throws(ImageError) {
    guard compression.isCompressed else { return }
    for index in first..<(first + count) {
      let block = blocks[index]
      let isRaw = block.storedCount == block.byteCount
      if block.storedCount == 0 {
        totals.pagesZero += UInt64(block.byteCount) / pageBytes
      } else {
        // CRIU: an entry whose first stored bytes are plain pages has them at a page boundary.
        if open.payloadBytes == 0 && isRaw {
          try flush(&run)
          try payload.align()
          open.segment.flags.insert(.payloadAligned)
        }
        let bytes = chunk.storedBytes(block)
        if !run.extend(bytes, isRaw: isRaw) {
          try flush(&run)
          run = StoredRun(bytes, isRaw: isRaw)
        }
        open.payloadBytes += UInt64(block.storedCount)
      }
      if !isRaw { open.allRaw = false }
      open.blockSizes.append(UInt32(block.storedCount))
    }
  }

  private mutating func flush(_ run: inout StoredRun) throws(ImageError) {
    if !run.bytes.isEmpty { try payload.append(run.bytes) }
    run = StoredRun()
  }

  private mutating func closeEntry() throws(ImageError) {
    if !isOpen { return }
    isOpen = false
    var entry = Criu__PagemapEntry()
    criu__pagemap_entry__init(&entry)
    entry.vaddr = open.segment.start
    entry.has_flags = 1
    entry.flags = open.segment.flags.rawValue
    entry.has_nr_pages = 1
    entry.nr_pages = open.segment.pageCount
    // CRIU before 4.0 knows this field only, and reads plain entries as we write them. It knows
    // neither blocks nor aligned payload, so compressed rounds say 0 there, as CRIU 4.3 always
    // does: an old CRIU then finds nothing instead of taking LZ4 bytes for pages.
    if !compression.isCompressed {
      entry.compat_nr_pages = UInt32(exactly: open.segment.pageCount) ?? 0
    }
    if compression.isCompressed && open.segment.flags.contains(.present) && !open.allRaw {
      try appendEntryWithBlocks(entry)
    } else {
      try pagemap.append(entry)
    }
    open.blockSizes.removeAll(keepingCapacity: true)
    open.payloadBytes = 0
    open.allRaw = true
  }

  private mutating func appendEntryWithBlocks(_ plain: Criu__PagemapEntry) throws(ImageError) {
    var entry = plain
    var blocks = Criu__PagemapBlocks()
    criu__pagemap_blocks__init(&blocks)
    blocks.total_payload_size = open.payloadBytes
    blocks.pages_per_block = UInt32(compression.blockPages)
    blocks.n_block_sizes = open.blockSizes.count
    // Both pointers are good until the closures return, and the message is written inside.
    try open.blockSizes.withUnsafeMutableBufferPointer { sizes throws(ImageError) in
      blocks.block_sizes = sizes.baseAddress
      try withUnsafeMutablePointer(to: &blocks) { pointer throws(ImageError) in
        entry.blocks = pointer
        try pagemap.append(entry)
      }
    }
  }
}
