internal import CCRIUImages
package import Kernel

/// What `criu dump --prev-images-dir` is shown in place of the rounds: a directory that claims every
/// page of some processes, and has none.
///
/// Of a page that was not written CRIU asks only whether the parent has it, and reads no byte (criu:
/// check_pagehole_in_parent). So the rounds need not lie here, which in a migration they do not, nor
/// does it need LZ4 for them. Whether they have what CRIU leaves out then is found out afterwards:
/// see `StateImages.referToRounds`.
package struct AssumedParent: ~Copyable {
  private static let name = "memdump-parent"
  /// CRIU takes a process that is younger than its parent's images for another one of that number.
  /// Who is dumped is known here, and has perhaps just been born.
  private static let uptimeMicroseconds = UInt64(Int64.max)
  private static let addressSpace = PageRange(start: 0, end: 1 << 47)

  private let place: Directory
  private let directory: Directory

  /// Options that make a CRIU use it whose images go to that directory.
  package static let arguments = ["--track-mem", "--prev-images-dir", name]

  /// Makes one in the directory where CRIU's images will go. It is removed with this value.
  package init(in place: borrowing Directory) throws(ImageError) {
    let handle = try onFile(place.path) { () throws(KernelError) in try place.reopen() }
    let directory = try onFile(place.join(Self.name)) { () throws(KernelError) in
      try handle.createDirectory(Self.name)
    }
    self.place = handle
    self.directory = directory
  }

  private func writeInventory() throws(ImageError) {
    var writer = try RecordWriter(
      ImageFormat.inventoryName, in: directory, magics: [ImageFormat.inventory])
    var entry = Criu__InventoryEntry()
    criu__inventory_entry__init(&entry)
    entry.img_version = ImageFormat.plainVersion
    entry.has_dump_uptime = 1
    entry.dump_uptime = Self.uptimeMicroseconds
    try writer.append(entry)
    _ = try writer.finish(sync: false)
  }

  /// Claims all pages of these processes, once. CRIU dumps all memory of those that are not claimed.
  package func claimPages(of pids: [Int32]) throws(ImageError) {
    try writeInventory()
    for pid in pids {
      var writer = try PagemapWriter(ImageFormat.pagemapName(pid: pid), in: directory, pagesID: 1)
      try writer.append(Self.addressSpace, flags: .parent)
      try writer.finish()
    }
  }

  deinit {
    // Nobody can be told that this failed.
    for file in (try? directory.names()) ?? [] { try? directory.removeFile(file) }
    try? place.removeDirectory(Self.name)
    // Where CRIU has linked it.
    try? place.removeFile(ImageFormat.parentName)
  }
}
