internal import Kernel

/// The images of one process of which most pages come later: its pagemap, and the pages that cannot
/// come later or shall not.
struct LazyPagemap {
  /// Pages with their bytes in the images.
  private(set) var eager: [PageRange] = []
  /// Pages that are left to come; no range lies in two VMAs, which UFFDIO_COPY refuses.
  private(set) var lazy: [PageRange] = []
  /// Those of them that a later round than the first has.
  private(set) var rewritten: [PageRange] = []

  /// Writes the images of process `pid` of the chain at `path` into `directory`.
  ///
  /// - Parameters:
  ///   - state: has CRIU's images of the process, which say what CRIU lets come later.
  ///   - eagerBytes: what may come later and is to be there all the same: the pages of the newest
  ///     rounds, as far as whole rounds of them fit into this.
  static func write(
    _ pid: Int32, of path: String, _ state: borrowing Directory, to directory: borrowing Directory,
    eagerBytes: UInt64
  ) throws -> LazyPagemap {
    let stream = ImageStream.process(pid: pid)
    let pagesID = try PagemapReader(stream.pagemapName, in: state).pagesID
    let areas = try MappedArea.readAll(pid: pid, in: state)
    var image = try ComposedImage(ImageChain(path), stream: stream)
    let hot = try hotLevels(&image, eagerBytes: eagerBytes)
    let oldest = image.depth - 1
    var pages = LazyPagemap()
    var pagemap = try PagemapWriter(stream.pagemapName, in: directory, pagesID: pagesID)
    var area = 0
    try image.forEachOwner { (range, level, flags) throws in
      var start = range.start
      while start < range.end {
        while area < areas.count, areas[area].range.end <= start { area += 1 }
        let end =
          area < areas.count && areas[area].range.start <= start
          ? min(range.end, areas[area].range.end) : range.end
        let part = PageRange(start: start, end: end)
        let mayWait = area < areas.count && areas[area].pagesMayComeLater
        let isLazy = flags.contains(.lazy) && level >= hot && mayWait
        // Not marked as lazy: CRIU would ask for it all the same.
        try pagemap.append(part, flags: isLazy ? .lazy : .present)
        if isLazy, level < oldest { Self.add(part, to: &pages.rewritten) }
        if !isLazy {
          Self.add(part, to: &pages.eager)
        } else if part.start == areas[area].range.start {
          pages.lazy.append(part)
        } else {
          Self.add(part, to: &pages.lazy)
        }
        start = end
      }
    }
    try pagemap.finish()
    try pages.writeEager(pid, of: path, pagesID, to: directory)
    return pages
  }

  private static func add(_ range: PageRange, to ranges: inout [PageRange]) {
    if let last = ranges.indices.last, ranges[last].end == range.start {
      ranges[last] = PageRange(start: ranges[last].start, end: range.end)
    } else {
      ranges.append(range)
    }
  }

  private func writeEager(
    _ pid: Int32, of path: String, _ pagesID: UInt32, to directory: borrowing Directory
  ) throws {
    let name = ImageFormat.pagesName(pagesID)
    let file = File(try directory.createFile(name), path: directory.join(name))
    var source = try PageSource(path, pid: pid)
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: ComposedImage.batchBytes, alignment: ImageFormat.page)
    defer { buffer.deallocate() }
    for range in eager {
      var address = range.start
      while address < range.end {
        let count = Int(min(range.end - address, UInt64(buffer.count)))
        let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
        _ = try source.read(from: address, into: part)
        try file.write(UnsafeRawBufferPointer(part))
        address += UInt64(count)
      }
    }
  }

  /// How many rounds, from the newest, have lazy pages of no more than this together.
  private static func hotLevels(_ image: inout ComposedImage, eagerBytes: UInt64) throws -> Int {
    if eagerBytes == 0 { return 0 }
    var bytes = [UInt64](repeating: 0, count: image.depth)
    try image.forEachOwner { (range, level, flags) in
      if flags.contains(.lazy) { bytes[level] += range.byteCount }
    }
    var sum: UInt64 = 0
    for level in bytes.indices {
      sum += bytes[level]
      if sum > eagerBytes { return level }
    }
    return bytes.count
  }
}

extension MappedArea {
  /// Whether `criu restore --lazy-pages` lets pages of it come later (criu: vma_entry_can_be_lazy),
  /// and nothing that the process does meanwhile can make them others than they should be: a child
  /// whose copy is wiped (MADV_WIPEONFORK) would be given them all the same.
  fileprivate var pagesMayComeLater: Bool {
    let (privately, anonymous, locked, huge): (UInt32, UInt32, UInt32, UInt32) =
      (0x2, 0x20, 0x2000, 0x40000)
    let kernelsOwn: UInt32 = 1 << 2 | 1 << 3 | 1 << 12
    let wipedOnFork: UInt64 = 1 << 18
    return advice & wipedOnFork == 0
      && mapFlags & (privately | anonymous | locked | huge) == privately | anonymous
      && status & kernelsOwn == 0
  }
}
