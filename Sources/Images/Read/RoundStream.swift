internal import Kernel
internal import SystemPackage

/// One round's pagemap and pages file, read from low to high addresses.
final class RoundStream {
  private var pagemap: PagemapReader
  private let pages: File?
  private let pagesPath: String
  private(set) var isAtEnd = false
  /// Block that `blockOffset` belongs to.
  private var block = 0
  /// Where that block's stored bytes are in the pages file.
  private var blockOffset: UInt64 = 0
  private var digests: BlockDigests?

  /// Opens a stream of the round in `directory` and goes to its first entry.
  ///
  /// - Parameter record: what the round's own record says; every block that is read is then
  ///   compared with its digest. Nil to read unchecked.
  init(
    _ stream: ImageStream, in directory: borrowing Directory, verifying record: RoundRecord? = nil
  ) throws(ImageError) {
    let pagemap = try PagemapReader(stream.pagemapName, in: directory)
    let name = ImageFormat.pagesName(pagemap.pagesID)
    let path = directory.join(name)
    var pages: File?
    do throws(KernelError) {
      pages = File(try directory.openFile(name), path: path)
    } catch {
      // CRIU does not ask for a pages file that has nothing to give.
      if error.errno != .noSuchFileOrDirectory { throw ImageError(error, file: path) }
    }
    self.pagemap = pagemap
    self.pages = pages
    pagesPath = path
    if let record { digests = try BlockDigests(record, stream: stream, in: directory) }
    try advance()
  }

  /// Whether pages are read in whole blocks: they are compressed, or compared with digests.
  var readsBlocks: Bool { digests != nil || pagemap.entry.hasBlocks }

  /// Pages in a block of the current entry.
  var pagesPerBlock: Int {
    pagemap.entry.hasBlocks ? pagemap.entry.pagesPerBlock : digests?.pagesPerBlock ?? 1
  }

  /// Decoded length of block `index` of the current entry (bytes): the last may be shorter.
  func decodedBytes(ofBlock index: Int) -> Int {
    let whole = UInt64(pagesPerBlock) * pageBytes
    return Int(min(whole, pagemap.entry.range.byteCount - UInt64(index) * whole))
  }

  /// The current entry; means nothing at the end.
  var entry: PagemapEntry {
    _read { yield pagemap.entry }
  }

  /// How people call the pagemap.
  var path: String { pagemap.path }

  /// Goes to the next entry.
  func advance() throws(ImageError) {
    if pagemap.entry.flags.contains(.present), !pagemap.entry.range.isEmpty {
      digests?.passEntry(pageCount: pagemap.entry.range.pageCount)
    }
    isAtEnd = try !pagemap.advance()
    block = 0
    blockOffset = pagemap.entry.payloadOffset
  }

  /// Goes back to the first entry.
  func rewind() throws(ImageError) {
    pagemap.rewind()
    digests?.rewind()
    try advance()
  }

  /// Goes to the entry at `place`, before or after the current one.
  func go(to place: PagemapReader.Place) throws(ImageError) {
    try pagemap.go(to: place)
    isAtEnd = false
    block = 0
    blockOffset = pagemap.entry.payloadOffset
  }

  /// Goes to the first entry that ends after `address`. Addresses ascend from call to call.
  func seek(to address: UInt64) throws(ImageError) {
    while !isAtEnd && pagemap.entry.range.end <= address { try advance() }
  }

  /// An error about the current entry.
  func error(_ kind: DamageKind, _ message: String) -> ImageError { pagemap.error(kind, message) }

  /// Reads plain pages of the current entry, from `address` on, into the whole of `target`.
  func readPlain(_ address: UInt64, into target: UnsafeMutableRawBufferPointer) throws(ImageError) {
    let offset = pagemap.entry.payloadOffset + (address - pagemap.entry.range.start)
    try read(target, at: offset)
  }

  /// Reads block `index` of the current entry into `target`, which is as long as the block, and
  /// compares it with its digest if that was asked for. Fast for ascending indices; where digests are
  /// compared they must ascend. `scratch` is at least as long as a stored block.
  func readBlock(
    _ index: Int, into target: UnsafeMutableRawBufferPointer,
    scratch: UnsafeMutableRawBufferPointer
  ) throws(ImageError) {
    let address =
      pagemap.entry.range.start + UInt64(index) * UInt64(pagesPerBlock) * pageBytes
    if pagemap.entry.hasBlocks {
      try readStored(index, address, into: target, scratch: scratch)
    } else {
      try readPlain(address, into: target)
    }
    guard try digests?.matches(block: index, of: pagemap.entry, target) ?? true else {
      throw ImageError(
        .digest, file: pagesPath, address: address,
        "the \(target.count) bytes of memory are not those that were dumped")
    }
  }

  private func readStored(
    _ index: Int, _ address: UInt64, into target: UnsafeMutableRawBufferPointer,
    scratch: UnsafeMutableRawBufferPointer
  ) throws(ImageError) {
    if index < block { (block, blockOffset) = (0, pagemap.entry.payloadOffset) }
    while block < index {
      blockOffset += UInt64(pagemap.entry.blockSizes[block])
      block += 1
    }
    let stored = UnsafeMutableRawBufferPointer(
      rebasing: scratch[..<Int(pagemap.entry.blockSizes[index])])
    if !stored.isEmpty { try read(stored, at: blockOffset) }
    guard BlockDecoder.decode(UnsafeRawBufferPointer(stored), into: target) else {
      throw ImageError(
        .compressedBlock, file: pagesPath, byteOffset: blockOffset, address: address,
        "the block does not decode to its \(target.count) bytes")
    }
  }

  private func read(_ target: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ImageError) {
    let count: Int
    switch pages {
    case .none: throw error(.missingFile, "\(pagesPath) is missing")
    case .some(let pages):
      count = try onFile(pagesPath) { () throws(KernelError) in
        try pages.read(into: target, at: offset)
      }
    }
    guard count == target.count else {
      throw ImageError(
        .payloadSize, file: pagesPath, byteOffset: offset, address: pagemap.entry.range.start,
        "the pages file ends before the pages do")
    }
  }
}
