internal import Kernel

/// Writes a directory of its own from which CRIU restores a process before its memory is there: all
/// that is not memory, the pages that cannot come later, and those that the process wrote last.
///
/// CRIU asks a page server for the rest, in the order of addresses and of the process's page faults.
/// It cannot be told which pages to fetch first; so the hottest ones are simply there.
package enum LazyDirectory {
  /// What was written.
  package struct Totals: Sendable, Equatable {
    /// Pages with their bytes in the directory.
    package var eagerPages: UInt64 = 0
    /// Pages that are left to a page server.
    package var lazyPages: UInt64 = 0
  }

  /// Writes the directory at `target`, which must not exist.
  ///
  /// - Parameters:
  ///   - eagerBytes: hot pages to be there: those of the newest rounds, as far as whole rounds of
  ///     them fit into this.
  package static func write(_ path: String, to target: String, eagerBytes: UInt64) throws -> Totals
  {
    let state = try Directory.open(path, followSymlink: true)
      .directory(StateImages.directoryName)
    let directory = try Directory.create(target)
    let names = try state.names()
    let pids = RestoreDirectory.processes(in: names)
    var own: Set<String> = [ImageFormat.parentName, ImageFormat.inventoryName]
    try Inventory.rewrite(from: state, to: directory, isCompressed: false)
    var totals = Totals()
    for pid in pids {
      own.insert(ImageFormat.pagemapName(pid: pid))
      try write(pid, of: path, state, to: directory, eagerBytes: eagerBytes, &totals)
    }
    for name in names where !own.contains(name) { try copy(name, from: state, to: directory) }
    return totals
  }

  private static func write(
    _ pid: Int32, of path: String, _ state: borrowing Directory, to directory: borrowing Directory,
    eagerBytes: UInt64, _ totals: inout Totals
  ) throws {
    let stream = ImageStream.process(pid: pid)
    let pagesID = try PagemapReader(stream.pagemapName, in: state).pagesID
    var image = try ComposedImage(ImageChain(path), stream: stream)
    let hot = try hotLevels(&image, eagerBytes: eagerBytes)
    var eager: [PageRange] = []
    var pagemap = try PagemapWriter(stream.pagemapName, in: directory, pagesID: pagesID)
    try image.forEachOwner { (range, level, flags) throws in
      if flags.contains(.lazy) && level >= hot {
        try pagemap.append(range, flags: .lazy)
        totals.lazyPages += range.pageCount
      } else {
        // Not lazy: CRIU would ask the page server for it all the same.
        try pagemap.append(range, flags: .present)
        totals.eagerPages += range.pageCount
        eager.append(range)
      }
    }
    try pagemap.finish()
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

  private static func copy(
    _ name: String, from source: borrowing Directory, to target: borrowing Directory
  ) throws {
    let input = File(try source.openFile(name), path: source.join(name))
    let output = File(try target.createFile(name), path: target.join(name))
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 16)
    defer { buffer.deallocate() }
    var offset: UInt64 = 0
    while true {
      let count = try input.read(into: buffer, at: offset)
      if count == 0 { return }
      try output.write(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
      offset += UInt64(count)
    }
  }
}
