internal import Images
internal import Kernel

/// The shared memory objects as the freeze found them: their part of the copied items, and their
/// open files in case the copy had no room for all.
struct SharedObjectCopy: ~Copyable {
  private let objects: [SharedObjects.Object]
  private let files: [Int: OpenObject]
  /// Items from here on belong to objects; each names its object by position.
  let firstItem: Int

  private final class OpenObject {
    let file: File
    init(_ file: consuming File) { self.file = file }
  }

  /// Copies the data of every object that `members` map.
  init(_ members: [FrozenMember], _ copy: inout FrozenCopy) throws(RoundFailure) {
    firstItem = copy.beginSection()
    let objects = SharedObjects.list(members: members.map(\.described.addressSpace.vmas))
    var files: [Int: OpenObject] = [:]
    for (position, object) in objects.enumerated() {
      let file: File
      let view = members[object.member].member
      do throws(KernelError) { file = try view.view.process.open(object.linkName) } catch {
        throw .kernel(error)
      }
      let open = OpenObject(file)
      do throws(ScanFailure<CopyFailure>) {
        try SharedObjects.forEachDataRun(in: open.file) { (range) throws(CopyFailure) in
          try copy.store(range, vma: position, flags: .present) {
            (offset, buffer) throws(KernelError) in
            try SharedObjects.readPages(of: open.file, at: offset, into: buffer)
          }
        }
      } catch { throw RoundFailure(error) }
      files[position] = open
    }
    self.objects = objects
    self.files = files
  }

  var count: Int { objects.count }

  func object(_ position: Int) -> SharedObjects.Object { objects[position] }

  func read(_ position: Int, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(KernelError) -> ProcessMemory.ReadResult
  {
    guard let open = files[position] else { return .pages(0) }
    return try SharedObjects.readPages(of: open.file, at: offset, into: buffer)
  }
}

/// A process as the freeze found it.
struct FrozenMember {
  let member: TreeMember
  var described: RoundMember
  /// Its part of the copied items.
  var items: Range<Int>
  /// Pages that verification found.
  var pagesFound: UInt64

  /// Pages that were stored of it, and of shared objects that it is the first to map.
  var pagesStored: UInt64 { described.addressSpace.vmas.reduce(0) { $0 + $1.pagesStored } }
}

/// Writes what a freeze copied, from memory, or from the frozen processes where memory was short.
enum FrozenReplay {
  static func write(
    _ copy: borrowing FrozenCopy, _ objects: borrowing SharedObjectCopy,
    _ members: inout [FrozenMember], _ pipeline: ChunkPipeline, _ writer: consuming RoundWriter
  ) throws(RoundFailure) -> RoundWriter {
    // Not to be interrupted: what was copied is the only complete image.
    var copier = RoundCopier(pipeline: pipeline, cancellation: nil)
    return try pipeline.write(with: writer) { () throws(RoundFailure) in
      do throws(CopyFailure) {
        for index in members.indices {
          if index > 0 { pipeline.beginProcess(members[index].member.pid) }
          copier.beginProcess()
          try write(&members[index], copy, &copier)
          copier.flush()
        }
        try writeObjects(copy, objects, &members, pipeline, &copier)
      } catch { throw .copy(error) }
    }
  }

  private static func write(
    _ frozen: inout FrozenMember, _ copy: borrowing FrozenCopy, _ copier: inout RoundCopier
  ) throws(CopyFailure) {
    let member = frozen.member
    for item in copy.items[frozen.items] {
      if item.flags == .parent {
        try copier.takeFromParent(item.range)
        frozen.described.addressSpace.vmas[item.vma].pagesFromParent += item.range.pageCount
      } else {
        frozen.described.addressSpace.vmas[item.vma].pagesStored +=
          try store(item, copy, &copier) { (address, buffer) throws(KernelError) in
            try member.view.memory.readPages(at: address, into: buffer)
          }
      }
    }
  }

  private static func writeObjects(
    _ copy: borrowing FrozenCopy, _ objects: borrowing SharedObjectCopy,
    _ members: inout [FrozenMember], _ pipeline: ChunkPipeline, _ copier: inout RoundCopier
  ) throws(CopyFailure) {
    var items = copy.items[objects.firstItem...]
    for position in 0..<objects.count {
      let object = objects.object(position)
      pipeline.beginSharedObject(object.id)
      copier.beginProcess()
      while let item = items.first, item.vma == position {
        items.removeFirst()
        members[object.member].described.addressSpace.vmas[object.vma].pagesStored +=
          try store(item, copy, &copier) { (offset, buffer) throws(KernelError) in
            try objects.read(position, at: offset, into: buffer)
          }
      }
      copier.flush()
    }
  }

  private static func store(
    _ item: FrozenCopy.Item, _ copy: borrowing FrozenCopy, _ copier: inout RoundCopier,
    orRead read: (UInt64, UnsafeMutableRawBufferPointer) throws(KernelError)
      -> ProcessMemory.ReadResult
  ) throws(CopyFailure) -> UInt64 {
    try copier.store(item.range, flags: item.flags) { (address, buffer) throws(KernelError) in
      item.spoolOffset == nil
        ? try read(address, buffer) : .pages(copy.fetch(item, at: address, into: buffer))
    }
  }
}
