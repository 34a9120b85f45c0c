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
      let pages = try LazyPagemap.write(pid, of: path, state, to: directory, eagerBytes: eagerBytes)
      own.insert(ImageFormat.pagemapName(pid: pid))
      totals.eagerPages += pages.eager.reduce(0) { $0 + $1.pageCount }
      totals.lazyPages += pages.lazy.reduce(0) { $0 + $1.pageCount }
    }
    for name in names where !own.contains(name) { try copy(name, from: state, to: directory) }
    return totals
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
