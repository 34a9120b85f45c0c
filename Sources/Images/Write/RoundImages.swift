internal import CCRIUImages
internal import Kernel

/// Writes CRIU's small images of a round: what describes it rather than holds its pages.
struct RoundImages {
  let description: RoundDescription
  let totals: RoundTotals
  let compression: PageCompression
  /// `img_version` of the parent's inventory.
  let parentVersion: UInt32

  /// Writes `inventory.img`.
  func writeInventory(in directory: borrowing Directory, sync: Bool) throws(ImageError)
    -> FileDigest
  {
    var writer = try RecordWriter(
      ImageFormat.inventoryName, in: directory, magics: [ImageFormat.inventory])
    var entry = Criu__InventoryEntry()
    criu__inventory_entry__init(&entry)
    // CRIU wants version 3 on top if any directory of the chain has compressed pages.
    entry.img_version =
      compression.isCompressed
      ? ImageFormat.compressedVersion : max(parentVersion, ImageFormat.plainVersion)
    entry.has_fdinfo_per_id = 1
    entry.fdinfo_per_id = 1
    entry.has_ns_per_id = 1
    entry.ns_per_id = 1
    entry.has_dump_uptime = 1
    entry.dump_uptime = description.uptimeMicroseconds
    entry.has_compress = 1
    entry.compress = compression.isCompressed ? 1 : 0
    if compression.isCompressed {
      entry.has_compress_block_size = 1
      entry.compress_block_size = UInt32(compression.blockPages * ImageFormat.page)
    }
    try writer.append(entry)
    return try writer.finish(sync: sync)
  }

  /// Writes `stats-dump`.
  func writeStatistics(in directory: borrowing Directory, sync: Bool) throws(ImageError)
    -> FileDigest
  {
    var writer = try RecordWriter(
      ImageFormat.statisticsName, in: directory,
      magics: [ImageFormat.service, ImageFormat.statistics])
    let statistics = description.statistics
    let scope = PackScope()
    var dump = Criu__DumpStatsEntry()
    criu__dump_stats_entry__init(&dump)
    dump.freezing_time = UInt32(clamping: statistics.freezingMicroseconds)
    dump.frozen_time = UInt32(clamping: statistics.frozenMicroseconds)
    dump.memdump_time = UInt32(clamping: statistics.scanMicroseconds)
    dump.memwrite_time = UInt32(clamping: statistics.copyMicroseconds)
    dump.pages_scanned = statistics.pagesScanned
    dump.pages_skipped_parent = totals.pagesFromParent
    dump.pages_written = totals.pagesStored
    var entry = Criu__StatsEntry()
    criu__stats_entry__init(&entry)
    entry.dump = scope.place(dump)
    try withExtendedLifetime(scope) { () throws(ImageError) in try writer.append(entry) }
    return try writer.finish(sync: sync)
  }

  /// Writes `mm-PID.img`. No file is named in it: files are CRIU's part of a dump.
  func writeMM(of member: RoundMember, in directory: borrowing Directory, sync: Bool)
    throws(ImageError) -> FileDigest
  {
    var writer = try RecordWriter(
      ImageFormat.mmName(pid: member.target.pid), in: directory,
      magics: [ImageFormat.common, ImageFormat.mm])
    let space = member.addressSpace
    let scope = PackScope()
    var entry = Criu__MmEntry()
    criu__mm_entry__init(&entry)
    entry.mm_start_code = space.codeStart
    entry.mm_end_code = space.codeEnd
    entry.mm_start_data = space.dataStart
    entry.mm_end_data = space.dataEnd
    entry.mm_start_stack = space.stackStart
    entry.mm_start_brk = space.breakStart
    entry.mm_brk = space.breakEnd
    entry.mm_arg_start = space.argumentsStart
    entry.mm_arg_end = space.argumentsEnd
    entry.mm_env_start = space.environmentStart
    entry.mm_env_end = space.environmentEnd
    entry.exe_file_id = 0
    entry.n_mm_saved_auxv = space.auxiliaryVector.count
    entry.mm_saved_auxv = scope.place(space.auxiliaryVector)
    entry.n_vmas = space.vmas.count
    entry.vmas = scope.place(space.vmas.map { Optional(scope.place(Self.message($0))) })
    try withExtendedLifetime(scope) { () throws(ImageError) in try writer.append(entry) }
    return try writer.finish(sync: sync)
  }

  private static func message(_ vma: VMARecord) -> Criu__VmaEntry {
    var message = Criu__VmaEntry()
    criu__vma_entry__init(&message)
    message.start = vma.range.start
    message.end = vma.range.end
    message.pgoff = vma.fileOffset
    message.shmid = vma.sharedObjectID
    message.prot = vma.protection
    message.flags = vma.mapFlags
    message.status = vma.status
    message.fd = -1
    message.has_madv = 1
    message.madv = vma.adviceBits
    return message
  }
}
