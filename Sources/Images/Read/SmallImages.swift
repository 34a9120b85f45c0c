internal import CCRIUImages
internal import Kernel

/// What `inventory.img` says that concerns memory.
struct Inventory: Sendable, Equatable {
  /// `img_version`: 2 plain, 3 if some directory of the chain has compressed pages.
  var version: UInt32
  /// `compress`: 1 if this directory has compressed pages.
  var compress: UInt32
  /// Bytes of a block; nil if not said.
  var blockBytes: UInt32?

  /// Reads `inventory.img` in `directory`.
  static func read(in directory: borrowing Directory) throws(ImageError) -> Inventory {
    var reader = try RecordReader.open(
      ImageFormat.inventoryName, in: directory, magics: [ImageFormat.inventory])
    guard try reader.advance() else { throw reader.error(.truncated, "the inventory is empty") }
    let entry = try reader.message(Criu__InventoryEntry.self).pointee
    let inventory = Inventory(
      version: entry.img_version, compress: entry.has_compress != 0 ? entry.compress : 0,
      blockBytes: entry.has_compress_block_size != 0 ? entry.compress_block_size : nil)
    guard try !reader.advance() else {
      throw reader.error(.record, "the inventory has a second record")
    }
    return inventory
  }

  /// Makes the version in `inventory.img` of `source` fit for a chain with compressed pages, or for
  /// one without, and writes it to `target`, which may be the same directory, as `name`. CRIU 4.3
  /// asks the newest directory alone.
  static func rewrite(
    from source: borrowing Directory, to target: borrowing Directory,
    as name: String = ImageFormat.inventoryName, isCompressed: Bool
  ) throws(ImageError) {
    var reader = try RecordReader.open(
      ImageFormat.inventoryName, in: source, magics: [ImageFormat.inventory])
    guard try reader.advance() else { throw reader.error(.truncated, "the inventory is empty") }
    // Fields that we do not know are kept as they are.
    let message = try reader.message(Criu__InventoryEntry.self)
    message.pointee.img_version =
      isCompressed ? ImageFormat.compressedVersion : ImageFormat.plainVersion
    try? target.removeFile(name)
    var writer = try RecordWriter(name, in: target, magics: [ImageFormat.inventory])
    try writer.append(message.pointee)
    _ = try writer.finish(sync: false)
  }
}

/// A VMA as CRIU's `mm-PID.img` has it.
struct MappedArea: Sendable, Equatable {
  var range: PageRange
  /// MAP_*.
  var mapFlags: UInt32
  /// VMA_AREA_*.
  var status: UInt32
  /// The shared memory object, if it has one.
  var sharedObjectID: UInt64
  /// A bit for each advice that holds, by its number (madvise(2)).
  var advice: UInt64

  /// Reads the VMAs in `mm-PID.img`, which must ascend and not overlap.
  static func readAll(pid: Int32, in directory: borrowing Directory) throws(ImageError)
    -> [MappedArea]
  {
    var reader = try RecordReader.open(
      ImageFormat.mmName(pid: pid), in: directory, magics: [ImageFormat.common, ImageFormat.mm])
    guard try reader.advance() else { throw reader.error(.truncated, "mm is empty") }
    let message = try reader.message(Criu__MmEntry.self).pointee
    var areas: [MappedArea] = []
    var end: UInt64 = 0
    for pointer in UnsafeBufferPointer(start: message.vmas, count: message.n_vmas) {
      guard let vma = pointer?.pointee else { continue }
      guard vma.start % pageBytes == 0, vma.end % pageBytes == 0, vma.start < vma.end else {
        throw reader.error(.alignment, address: vma.start, "a VMA that is not in whole pages")
      }
      guard vma.start >= end else {
        throw reader.error(.order, address: vma.start, "VMAs overlap or do not ascend")
      }
      end = vma.end
      areas.append(
        MappedArea(
          range: PageRange(start: vma.start, end: vma.end), mapFlags: vma.flags,
          status: vma.status, sharedObjectID: vma.shmid, advice: vma.madv))
    }
    guard try !reader.advance() else { throw reader.error(.record, "mm has a second record") }
    return areas
  }
}

extension AddressSpace {
  /// Reads what `mm-PID.img` says besides its VMAs, which `vmas` are.
  static func read(pid: Int32, vmas: [VMARecord], in directory: borrowing Directory)
    throws(ImageError) -> AddressSpace
  {
    var reader = try RecordReader.open(
      ImageFormat.mmName(pid: pid), in: directory, magics: [ImageFormat.common, ImageFormat.mm])
    guard try reader.advance() else { throw reader.error(.truncated, "mm is empty") }
    let message = try reader.message(Criu__MmEntry.self).pointee
    var space = AddressSpace()
    space.codeStart = message.mm_start_code
    space.codeEnd = message.mm_end_code
    space.dataStart = message.mm_start_data
    space.dataEnd = message.mm_end_data
    space.stackStart = message.mm_start_stack
    space.breakStart = message.mm_start_brk
    space.breakEnd = message.mm_brk
    space.argumentsStart = message.mm_arg_start
    space.argumentsEnd = message.mm_arg_end
    space.environmentStart = message.mm_env_start
    space.environmentEnd = message.mm_env_end
    space.auxiliaryVector = Array(
      UnsafeBufferPointer(start: message.mm_saved_auxv, count: message.n_mm_saved_auxv))
    space.vmas = vmas
    return space
  }
}
