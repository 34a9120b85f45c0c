internal import CCRIUImages
internal import Kernel

/// Reads one pagemap, entry by entry, and refuses whatever CRIU 4.3 refuses.
struct PagemapReader: ~Copyable {
  private var records: RecordReader
  private let firstEntryOffset: UInt64
  /// The pages file is `pages-<pagesID>.img`.
  let pagesID: UInt32
  /// The current entry.
  private(set) var entry = PagemapEntry()
  /// Where the last entry's payload ends in the pages file (bytes).
  private(set) var payloadEnd: UInt64 = 0

  /// Opens the pagemap `name` and reads its head.
  init(_ name: String, in directory: borrowing Directory) throws(ImageError) {
    var records = try RecordReader.open(
      name, in: directory, magics: [ImageFormat.common, ImageFormat.pagemap])
    guard try records.advance() else {
      throw records.error(.truncated, "the pagemap has no head")
    }
    let head = try records.message(Criu__PagemapHead.self)
    guard head.pointee.base.n_unknown_fields == 0 else {
      throw records.error(.message, "the head has fields that CRIU does not define")
    }
    pagesID = head.pointee.pages_id
    firstEntryOffset = records.recordOffset + 4 + UInt64(records.record.count)
    self.records = records
  }

  /// How people call the file.
  var path: String { records.path }

  /// Digest of the whole file, once `advance` returned false.
  var fileDigest: Digest128 { records.digestBeforeRecord }

  /// Goes to the next entry. False at the end.
  mutating func advance() throws(ImageError) -> Bool {
    guard try records.advance() else { return false }
    let message = try records.message(Criu__PagemapEntry.self)
    let previousEnd = entry.range.end
    entry.recordOffset = records.recordOffset
    try readRange(message, previousEnd: previousEnd)
    try readFlags(message)
    try readBlocks(message)
    return true
  }

  /// Goes back to before the first entry. `fileDigest` means nothing after it.
  mutating func rewind() {
    records.seek(to: firstEntryOffset)
    entry.range = PageRange(start: 0, end: 0)
    payloadEnd = 0
  }

  /// Where an entry is, to come back to it.
  struct Place {
    /// Where its record starts in the pagemap.
    let recordOffset: UInt64
    /// Where the payload before it ends in the pages file.
    let payloadEnd: UInt64

    init(_ entry: PagemapEntry) {
      recordOffset = entry.recordOffset
      payloadEnd = entry.paddingOffset
    }
  }

  /// Goes to the entry at `place`. `fileDigest` means nothing after it.
  mutating func go(to place: Place) throws(ImageError) {
    records.seek(to: place.recordOffset)
    entry.range = PageRange(start: 0, end: 0)
    payloadEnd = place.payloadEnd
    guard try advance() else { throw error(.truncated, "the entry is gone") }
  }

  /// An error about the current entry.
  func error(_ kind: DamageKind, _ message: String) -> ImageError {
    records.error(kind, address: entry.range.start, message)
  }

  private mutating func readRange(
    _ message: UnsafeMutablePointer<Criu__PagemapEntry>, previousEnd: UInt64
  ) throws(ImageError) {
    let start = message.pointee.vaddr
    // CRIU before 4.0 has only the old field; CRIU 4.3 writes 0 there.
    let pages =
      message.pointee.has_nr_pages != 0
      ? message.pointee.nr_pages : UInt64(message.pointee.compat_nr_pages)
    entry.range = PageRange(start: start, end: start)
    guard message.pointee.base.n_unknown_fields == 0 else {
      throw error(.message, "the entry has fields that CRIU does not define")
    }
    let compat = UInt64(message.pointee.compat_nr_pages)
    guard compat == 0 || compat == pages else {
      throw error(.value, "the entry has \(pages) pages in one field and \(compat) in another")
    }
    guard start % pageBytes == 0 else { throw error(.alignment, "the address is not of a page") }
    guard pages > 0 else { throw error(.value, "the entry has no pages") }
    guard let end = Segment(start: start, pageCount: pages, flags: []).end else {
      throw error(.alignment, "\(pages) pages run over the end of the address space")
    }
    guard start >= previousEnd else {
      throw error(.order, "the entry starts before the last one ended, \(hexAddress(previousEnd))")
    }
    entry.range = PageRange(start: start, end: end)
  }

  private mutating func readFlags(_ message: UnsafeMutablePointer<Criu__PagemapEntry>)
    throws(ImageError)
  {
    let hasFlags = message.pointee.has_flags != 0
    var flags = PagemapFlags(rawValue: hasFlags ? message.pointee.flags : 0)
    let isLegacyParent = message.pointee.has_in_parent != 0 && message.pointee.in_parent != 0
    if isLegacyParent { flags.insert(.parent) }
    if !hasFlags && !isLegacyParent { flags = .present }
    entry.flags = flags
    guard flags.isSubset(of: .known) else {
      throw error(.flags, "flags \(flags.rawValue) have bits that CRIU does not define")
    }
    if flags.contains(.present) {
      guard !flags.contains(.parent) else {
        throw error(.flags, "the pages are said to be here and in the parent")
      }
    } else {
      guard !flags.contains(.payloadAligned), message.pointee.blocks == nil else {
        throw error(.flags, "the entry has no bytes here, but says how they are stored")
      }
      guard !flags.isEmpty else { throw error(.flags, "the pages are nowhere") }
    }
  }

  private mutating func readBlocks(_ message: UnsafeMutablePointer<Criu__PagemapEntry>)
    throws(ImageError)
  {
    entry.blockSizes.removeAll(keepingCapacity: true)
    entry.pagesPerBlock = 0
    entry.paddingOffset = payloadEnd
    entry.payloadOffset = payloadEnd
    entry.payloadBytes = 0
    guard entry.flags.contains(.present) else { return }
    if let blocks = message.pointee.blocks {
      try copyBlocks(blocks)
    } else {
      entry.payloadBytes = entry.range.byteCount
    }
    if entry.flags.contains(.payloadAligned) {
      let (sum, overflow) = payloadEnd.addingReportingOverflow(pageBytes - 1)
      guard !overflow else { throw error(.limit, "the payload is longer than any file") }
      entry.payloadOffset = sum / pageBytes * pageBytes
    }
    let (end, overflow) = entry.payloadOffset.addingReportingOverflow(entry.payloadBytes)
    guard !overflow else { throw error(.limit, "the payload is longer than any file") }
    payloadEnd = end
  }

  private mutating func copyBlocks(_ blocks: UnsafeMutablePointer<Criu__PagemapBlocks>)
    throws(ImageError)
  {
    guard blocks.pointee.base.n_unknown_fields == 0 else {
      throw error(.message, "the blocks have fields that CRIU does not define")
    }
    let pagesPerBlock = Int(blocks.pointee.pages_per_block)
    guard PageCompression.pagesPerBlockLimits.contains(pagesPerBlock) else {
      throw error(.blocks, "\(pagesPerBlock) pages per block is not within 1...1024")
    }
    let pages = entry.range.pageCount
    let expected = (pages - 1) / UInt64(pagesPerBlock) + 1
    let count = blocks.pointee.n_block_sizes
    guard UInt64(count) == expected else {
      throw error(.blocks, "\(count) block sizes where \(pages) pages make \(expected)")
    }
    entry.pagesPerBlock = pagesPerBlock
    entry.blockSizes.append(
      contentsOf: UnsafeBufferPointer(start: blocks.pointee.block_sizes, count: count))
    var sum: UInt64 = 0
    for index in 0..<count {
      let size = entry.blockSizes[index]
      guard size <= entry.decodedBytes(ofBlock: index) else {
        throw error(.blocks, "block \(index) is stored in \(size) bytes, more than it has")
      }
      sum += UInt64(size)
    }
    guard sum == blocks.pointee.total_payload_size else {
      throw error(
        .blocks, "the block sizes sum up to \(sum), not \(blocks.pointee.total_payload_size)")
    }
    entry.payloadBytes = sum
  }
}

extension PagemapEntry {
  /// Decoded length of block `index` (bytes): the last block may be shorter.
  func decodedBytes(ofBlock index: Int) -> Int {
    let whole = UInt64(pagesPerBlock) * pageBytes
    return Int(min(whole, range.byteCount - UInt64(index) * whole))
  }
}
