internal import Images
internal import Kernel

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
  /// - Parameter unchanged: pages that were copied though the chain holds the same bytes.
  static func write(
    _ copy: borrowing FrozenCopy, _ objects: borrowing SharedObjectCopy,
    _ members: inout [FrozenMember], _ pipeline: ChunkPipeline, _ writer: consuming RoundWriter,
    _ plan: RoundPlan, unchanged: inout UInt64
  ) throws(RoundFailure) -> RoundWriter {
    if let confirmed = plan.confirmedRounds {
      for member in members { member.member.history.begin(round: plan.index, confirmed: confirmed) }
      objects.begin(round: plan.index, confirmed: confirmed)
    }
    // Not to be interrupted: what was copied is the only complete image.
    var copier = RoundCopier(pipeline: pipeline, cancellation: nil)
    // The chunks come with their pages: these only look for unchanged ones.
    let readers = members.map { RoundReader(nil, $0.member.history) }
    let objectReaders = objects.readers()
    let written = try pipeline.write(with: writer) { () throws(RoundFailure) in
      do throws(CopyFailure) {
        for index in members.indices {
          if index > 0 { pipeline.beginProcess(members[index].member.pid) }
          copier.begin(readers[index], members[index].member.history)
          try write(&members[index], copy, &copier)
          copier.flush()
          members[index].member.history.held = copier.populated
        }
        try writeObjects(copy, objects, objectReaders, &members, pipeline, &copier)
      } catch { throw .copy(error) }
    }
    do throws(KernelError) {
      for (index, reader) in readers.enumerated() {
        let read = try reader.finish()
        members[index].described.addressSpace.account(for: read)
        unchanged += read.unchangedCount
      }
      for (position, reader) in objectReaders.enumerated() {
        let object = objects.object(position)
        let pages = try reader.finish().unchangedCount
        members[object.member].described.addressSpace.vmas[object.vma].take(unchanged: pages)
      }
    } catch { throw .kernel(error) }
    return written
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
    _ copy: borrowing FrozenCopy, _ objects: borrowing SharedObjectCopy, _ readers: [RoundReader],
    _ members: inout [FrozenMember], _ pipeline: ChunkPipeline, _ copier: inout RoundCopier
  ) throws(CopyFailure) {
    var items = copy.items[objects.firstItem...]
    var held: [UInt64: PopulatedSet] = [:]
    for (position, reader) in readers.enumerated() {
      let object = objects.object(position)
      copier.flush()
      pipeline.beginSharedObject(object.id)
      copier.begin(reader, objects.history(position))
      var record = members[object.member].described.addressSpace.vmas[object.vma]
      while let item = items.first, item.vma == position {
        items.removeFirst()
        if item.flags == .parent {
          try copier.takeFromParent(item.range)
          record.pagesFromParent += item.range.pageCount
        } else {
          record.pagesStored += try store(item, copy, &copier) {
            (offset, buffer) throws(KernelError) in
            try objects.read(position, at: offset, into: buffer)
          }
        }
      }
      members[object.member].described.addressSpace.vmas[object.vma] = record
      held[object.id] = copier.populated
    }
    copier.flush()
    objects.finish(held)
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
