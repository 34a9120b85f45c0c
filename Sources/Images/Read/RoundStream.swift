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

  /// Opens a stream of the round in `directory` and goes to its first entry.
  init(_ stream: ImageStream, in directory: borrowing Directory) throws(ImageError) {
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
    try advance()
  }

  /// The current entry; means nothing at the end.
  var entry: PagemapEntry {
    _read { yield pagemap.entry }
  }

  /// How people call the pagemap.
  var path: String { pagemap.path }

  /// Goes to the next entry.
  func advance() throws(ImageError) {
    isAtEnd = try !pagemap.advance()
    block = 0
    blockOffset = pagemap.entry.payloadOffset
  }

  /// Goes back to the first entry.
  func rewind() throws(ImageError) {
    pagemap.rewind()
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

  /// Decodes block `index` of the current entry into `target`, which is as long as the block.
  /// Fast for ascending indices. `scratch` is at least as long as a stored block.
  func readBlock(
    _ index: Int, into target: UnsafeMutableRawBufferPointer,
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
        .compressedBlock, file: pagesPath, byteOffset: blockOffset,
        address: pagemap.entry.range.start
          + UInt64(index) * UInt64(pagemap.entry.pagesPerBlock) * pageBytes,
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
