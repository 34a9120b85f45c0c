package import Kernel

/// What a whole chain says that its newest round holds: every populated page of one stream, from
/// whichever round has its bytes.
///
/// Reads from low to high addresses with a cursor per round, in bounded memory, two open files per
/// round. Pages between the runs are holes: not populated.
package struct ComposedImage: ~Copyable {
  /// The most bytes that are handed out at once.
  package static let batchBytes = 1 << 20

  private let levels: [RoundStream]
  private let cache: BlockCache
  /// The highest address that `read` went to since the cursors were at the start.
  private var lastRead: UInt64 = 0
  // Allocated and freed here; `forEachRun` and `read` lend out slices for the time of a call.
  private let batch: UnsafeMutableRawBufferPointer

  /// Opens `stream` in all rounds of the chain that have it.
  ///
  /// - Parameter verifying: whether every block that is read is compared with the digest that the
  ///   round's record has of it; all rounds must then be memdump's.
  /// - Throws: the chain's `linkProblem`, and whatever is wrong with the first entries.
  package init(_ chain: borrowing ImageChain, stream: ImageStream, verifying: Bool = false)
    throws(ImageError)
  {
    if let problem = chain.linkProblem { throw problem }
    var levels: [RoundStream] = []
    for round in chain.rounds {
      let directory = try chain.open(round)
      let record = verifying ? try chain.record(of: round) : nil
      do throws(ImageError) {
        levels.append(try RoundStream(stream, in: directory, verifying: record))
      } catch {
        // An object that is new in a round has no pagemap in older ones.
        if error.kind == .missingFile && !levels.isEmpty { break }
        throw error
      }
    }
    self.levels = levels
    cache = BlockCache(levels: levels.count)
    batch = .allocate(byteCount: Self.batchBytes, alignment: ImageFormat.page)
  }

  deinit { batch.deallocate() }

  /// Calls `body` with every populated page of `pages`, in ascending order and in pieces of at most
  /// `batchBytes`. The bytes are good until `body` returns.
  ///
  /// - Throws: what is wrong with the images, or what `body` throws.
  package mutating func forEachRun(
    in pages: PageRange = PageRange.everything,
    _ body: (PageRange, UnsafeRawBufferPointer) throws -> Void
  ) throws {
    try forEachFlaggedRun(in: pages) { (range, _, bytes) in try body(range, bytes) }
  }

  /// As `forEachRun`, with the flags that the pages are stored with.
  package mutating func forEachFlaggedRun(
    in pages: PageRange = PageRange.everything,
    _ body: (PageRange, PagemapFlags, UnsafeRawBufferPointer) throws -> Void
  ) throws {
    try forEachOwner(in: pages) { (owned, level, image) throws in
      var address = owned.start
      while address < owned.end {
        let count = Int(min(owned.end - address, UInt64(Self.batchBytes)))
        let bytes = UnsafeMutableRawBufferPointer(rebasing: image.batch[..<count])
        try image.read(address, level: level, into: bytes)
        let next = address + UInt64(count)
        image.lastRead = next
        let flags = image.levels[level].entry.flags.subtracting(.payloadAligned)
        try body(PageRange(start: address, end: next), flags, UnsafeRawBufferPointer(bytes))
        address = next
      }
    }
  }

  /// Calls `body` with every run of populated pages of `pages` whose bytes are in one round, in
  /// ascending order: which round, 0 the newest, and the flags that it has them under. Reads
  /// pagemaps alone.
  package mutating func forEachOwner(
    in pages: PageRange = PageRange.everything,
    _ body: (PageRange, Int, PagemapFlags) throws -> Void
  ) throws {
    try forEachOwner(in: pages) { (owned, level, image) throws in
      try body(owned, level, image.levels[level].entry.flags)
    }
  }

  /// As `forEachOwner`, with the place of the owner's entry.
  mutating func forEachPlace(_ body: (PageRange, Int, PagemapReader.Place) -> Void) throws {
    try forEachOwner(in: .everything) { (owned, level, image) throws in
      body(owned, level, PagemapReader.Place(image.levels[level].entry))
    }
  }

  /// How many rounds have the stream.
  var depth: Int { levels.count }

  /// Goes to an entry of one round, for `read(_:level:into:)`.
  func go(to place: PagemapReader.Place, level: Int) throws(ImageError) {
    try levels[level].go(to: place)
  }

  private mutating func forEachOwner(
    in pages: PageRange, _ body: (PageRange, Int, inout ComposedImage) throws -> Void
  ) throws {
    guard let top = levels.first else { return }
    try rewind()
    try top.seek(to: pages.start)
    while !top.isAtEnd {
      let range = top.entry.range.intersection(pages)
      if range.isEmpty { return }
      var address = range.start
      while address < range.end {
        let (level, end) = try owner(of: address, before: range.end)
        try body(PageRange(start: address, end: end), level, &self)
        address = end
      }
      try top.advance()
    }
  }

  /// Reads the page at `address` into the whole of `page`, 4096 bytes. False if it is a hole.
  ///
  /// Fast for ascending addresses; an address below the last one starts again at the lowest.
  package mutating func read(_ address: UInt64, into page: UnsafeMutableRawBufferPointer)
    throws(ImageError) -> Bool
  {
    precondition(page.count == ImageFormat.page && address % pageBytes == 0)
    guard let top = levels.first else { return false }
    if address < lastRead { try rewind() }
    lastRead = address
    try top.seek(to: address)
    guard !top.isAtEnd, top.entry.range.start <= address else { return false }
    let (level, _) = try owner(of: address, before: address + pageBytes)
    try read(address, level: level, into: page)
    return true
  }

  private mutating func rewind() throws(ImageError) {
    for level in levels { try level.rewind() }
    cache.clear()
    lastRead = 0
  }

  /// Which round has the page at `address`, and where its run of such pages ends, at most `limit`.
  private func owner(of address: UInt64, before limit: UInt64) throws(ImageError)
    -> (level: Int, end: UInt64)
  {
    var end = limit
    for (level, stream) in levels.enumerated() {
      if level > 0 { try stream.seek(to: address) }
      guard !stream.isAtEnd, stream.entry.range.start <= address else {
        throw missing(address, below: level)
      }
      end = min(end, stream.entry.range.end)
      if stream.entry.flags.contains(.present) { return (level, end) }
      guard stream.entry.flags.contains(.parent) else {
        throw ImageError(
          .lazyPage, file: stream.path, byteOffset: stream.entry.recordOffset, address: address,
          "the page was left to a lazy restore and is in no image")
      }
    }
    throw missing(address, below: levels.count)
  }

  private func missing(_ address: UInt64, below level: Int) -> ImageError {
    ImageError(
      .parentPage, file: levels[max(level - 1, 0)].path, address: address,
      "the page is said to be in the parent, and is not there")
  }

  /// Fills `target` with the pages of the current entry of `level` from `address` on.
  func read(_ address: UInt64, level: Int, into target: UnsafeMutableRawBufferPointer)
    throws(ImageError)
  {
    let stream = levels[level]
    guard stream.readsBlocks else { return try stream.readPlain(address, into: target) }
    let whole = UInt64(stream.pagesPerBlock) * pageBytes
    var done = 0
    while done < target.count {
      let inEntry = address + UInt64(done) - stream.entry.range.start
      let bytes = try cache.block(Int(inEntry / whole), of: stream, level: level)
      let skipped = Int(inEntry % whole)
      let count = min(bytes.count - skipped, target.count - done)
      UnsafeMutableRawBufferPointer(rebasing: target[done..<(done + count)])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[skipped..<(skipped + count)]))
      done += count
    }
  }
}
