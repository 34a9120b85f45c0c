internal import Kernel

/// Checks one pagemap and its pages file to the last byte.
struct StreamVerifier: ~Copyable {
  /// What was counted on the way.
  struct Result {
    var pagesPresent: UInt64 = 0
    var pagesZero: UInt64 = 0
    var pagesFromParent: UInt64 = 0
    var payloadBytes: UInt64 = 0
    var usesBlocks = false
    var usesAlignment = false
    var pagesName = ""
    /// Digests of both files; nil if they could not be read to their ends.
    var pagemapDigest: Digest128?
    var pagesDigest: Digest128?
  }

  private var pagemap: PagemapReader
  private var pages: SequentialReader?
  private let pagesPath: String
  private var digests: DigestCursor?
  /// Pages per digest.
  private let digestPages: Int
  private var coverage: AreaCoverage
  private var result = Result()
  private var zeros: (byteCount: Int, digest: UInt64)?
  // Allocated and freed here only; holds the block that is being decoded.
  private var decoded: UnsafeMutableRawBufferPointer

  /// Opens a stream.
  ///
  /// - Parameters:
  ///   - digests: the stream's digests, of `digestPages` pages each; nil if there are none.
  ///   - areas: the VMAs that all pages must lie in; nil if that does not matter.
  init(
    _ stream: ImageStream, in directory: borrowing Directory, digests: consuming DigestCursor?,
    digestPages: Int, areas: [MappedArea]?, log: inout FindingLog
  ) throws(ImageError) {
    let pagemap = try PagemapReader(stream.pagemapName, in: directory)
    let name = ImageFormat.pagesName(pagemap.pagesID)
    var pages: SequentialReader?
    do throws(ImageError) {
      pages = try SequentialReader(name, in: directory)
    } catch {
      // Found out below, if there is anything to read.
      if error.kind != .missingFile { log.damage(error) }
    }
    self.pagemap = pagemap
    self.pages = pages
    pagesPath = directory.join(name)
    self.digests = digests
    self.digestPages = digestPages
    coverage = AreaCoverage(areas)
    result.pagesName = name
    decoded = .allocate(byteCount: 0, alignment: ImageFormat.page)
  }

  deinit { decoded.deallocate() }

  /// Reads everything, and notes what is wrong.
  consuming func run(_ log: inout FindingLog) -> Result {
    let isWhole: Void? = log.attempt { (log) throws(ImageError) in
      while try pagemap.advance() { try check(&log) }
      result.pagemapDigest = pagemap.fileDigest
      try checkEnds(&log)
    }
    if isWhole == nil { result.pagesDigest = nil }
    return result
  }

  private mutating func check(_ log: inout FindingLog) throws(ImageError) {
    let pageCount = pagemap.entry.range.pageCount
    if let outside = coverage.firstOutside(pagemap.entry.range) {
      log.damage(
        ImageError(
          .outsideVMA, file: pagemap.path, byteOffset: pagemap.entry.recordOffset,
          address: outside, "the page lies in no VMA"))
    }
    if pagemap.entry.flags.contains(.parent) {
      result.pagesFromParent += pageCount
    } else if pagemap.entry.flags.contains(.present) {
      result.pagesPresent += pageCount
      if pagemap.entry.flags.contains(.payloadAligned) { result.usesAlignment = true }
      try checkPadding(&log)
      if pagemap.entry.hasBlocks {
        result.usesBlocks = true
        try checkBlocks(&log)
      } else {
        try checkPlain(&log)
      }
    } else {
      log.damage(
        pagemap.error(
          .lazyPage, "\(pageCount) pages were left to a lazy restore; a plain one makes them zero"))
    }
  }

  private mutating func checkPadding(_ log: inout FindingLog) throws(ImageError) {
    let count = Int(pagemap.entry.payloadOffset - pagemap.entry.paddingOffset)
    if count == 0 { return }
    let bytes = try take(count)
    if bytes.contains(where: { $0 != 0 }) {
      log.damage(
        ImageError(
          .padding, file: pagesPath, byteOffset: pagemap.entry.paddingOffset,
          address: pagemap.entry.range.start, "the padding before the pages is not zero"))
    }
  }

  private mutating func checkPlain(_ log: inout FindingLog) throws(ImageError) {
    var address = pagemap.entry.range.start
    while address < pagemap.entry.range.end {
      let count = Int(
        min(UInt64(digestPages * ImageFormat.page), pagemap.entry.range.end - address))
      let offset = pages?.offset ?? 0
      let bytes = try take(count)
      try compare(bytes, address: address, offset: offset, &log)
      address += UInt64(count)
    }
  }

  private mutating func checkBlocks(_ log: inout FindingLog) throws(ImageError) {
    if digests != nil && pagemap.entry.pagesPerBlock != digestPages {
      throw pagemap.error(
        .record, "blocks of \(pagemap.entry.pagesPerBlock) pages, digests of \(digestPages)")
    }
    let whole = pagemap.entry.pagesPerBlock * ImageFormat.page
    if decoded.count < whole {
      decoded.deallocate()
      decoded = .allocate(byteCount: whole, alignment: ImageFormat.page)
    }
    var address = pagemap.entry.range.start
    for index in 0..<pagemap.entry.blockSizes.count {
      let count = pagemap.entry.decodedBytes(ofBlock: index)
      let offset = pages?.offset ?? 0
      let stored = try take(Int(pagemap.entry.blockSizes[index]))
      if stored.isEmpty {
        // Not decoded: a short file may say that terabytes are zero.
        result.pagesZero += UInt64(count) / pageBytes
        if digests != nil {
          let digest = zeroDigest(byteCount: count)
          try compare(digest, byteCount: count, address: address, offset: offset, &log)
        }
        address += UInt64(count)
        continue
      }
      let target = UnsafeMutableRawBufferPointer(rebasing: decoded[..<count])
      if BlockDecoder.decode(stored, into: target) {
        try compare(UnsafeRawBufferPointer(target), address: address, offset: offset, &log)
      } else {
        log.damage(
          ImageError(
            .compressedBlock, file: pagesPath, byteOffset: offset, address: address,
            "the block does not decode to its \(count) bytes"))
        _ = try digests?.advance()
      }
      address += UInt64(count)
    }
  }

  /// Compares a block's pages with what was dumped.
  private mutating func compare(
    _ bytes: UnsafeRawBufferPointer, address: UInt64, offset: UInt64, _ log: inout FindingLog
  ) throws(ImageError) {
    guard digests != nil, let base = bytes.baseAddress else { return }
    let digest = blockDigest(base, count: bytes.count)
    try compare(digest, byteCount: bytes.count, address: address, offset: offset, &log)
  }

  private mutating func compare(
    _ digest: UInt64, byteCount: Int, address: UInt64, offset: UInt64, _ log: inout FindingLog
  ) throws(ImageError) {
    guard let expected = try digests?.advance() else {
      throw pagemap.error(.record, "there are more pages than digests")
    }
    if digest == expected { return }
    log.damage(
      ImageError(
        .digest, file: pagesPath, byteOffset: offset, address: address,
        "the \(byteCount) bytes of memory are not those that were dumped"))
  }

  /// The digest of so many zeros; computed again only for another number.
  private mutating func zeroDigest(byteCount: Int) -> UInt64 {
    if let zeros, zeros.byteCount == byteCount { return zeros.digest }
    let bytes = UnsafeMutableRawBufferPointer(rebasing: decoded[..<byteCount])
    _ = BlockDecoder.decode(UnsafeRawBufferPointer(start: nil, count: 0), into: bytes)
    let digest = bytes.baseAddress.map { blockDigest($0, count: byteCount) } ?? 0
    zeros = (byteCount, digest)
    return digest
  }

  private mutating func checkEnds(_ log: inout FindingLog) throws(ImageError) {
    if digests != nil, try digests?.advance() != nil {
      log.damage(
        ImageError(.record, file: pagemap.path, "there are more digests than pages"))
    }
    guard let end = pages?.offset, let byteCount = pages?.byteCount else { return }
    result.payloadBytes = byteCount
    if end != byteCount {
      log.damage(
        ImageError(
          .payloadSize, file: pagesPath, byteOffset: end,
          "\(byteCount - min(end, byteCount)) bytes belong to no page"))
    }
    result.pagesDigest = pages?.digestSoFar
  }

  /// The next bytes of the pages file.
  private mutating func take(_ count: Int) throws(ImageError) -> UnsafeRawBufferPointer {
    if count == 0 { return UnsafeRawBufferPointer(start: nil, count: 0) }
    let offset = pages?.offset
    guard let offset else {
      throw pagemap.error(.missingFile, "\(result.pagesName) is missing")
    }
    guard let bytes = try pages?.take(count) else {
      throw ImageError(
        .payloadSize, file: pagesPath, byteOffset: offset, address: pagemap.entry.range.start,
        "the file ends before the pages do")
    }
    return bytes
  }
}
