internal import Images
internal import Kernel

/// Writes what a freeze copied, from memory, or from the frozen process where memory was short.
struct FrozenReplay {
  /// What the chain holds of the process's own memory.
  let history: StreamHistory

  /// - Returns: with the writer, how many pages were copied though the chain holds the same bytes.
  func write(
    _ copy: borrowing FrozenCopy, _ objects: borrowing SharedObjectCopy,
    _ space: inout AddressSpace, _ view: borrowing TargetView, _ pipeline: ChunkPipeline,
    _ writer: consuming RoundWriter, unchanged: inout UInt64
  ) throws(RoundFailure) -> RoundWriter {
    let reader = RoundReader(nil, history)
    let objectReaders = objects.readers()
    // Not to be interrupted: what was copied is the only complete image.
    var copier = RoundCopier(
      pipeline: pipeline, reader: reader, cancellation: nil, debt: nil)
    let written = try pipeline.write(with: writer) { () throws(RoundFailure) in
      do throws(CopyFailure) {
        for item in copy.items[..<objects.firstItem] {
          if item.flags == .parent {
            try copier.takeFromParent(item.range)
            space.vmas[item.vma].pagesFromParent += item.range.pageCount
          } else {
            space.vmas[item.vma].pagesStored += try store(item, copy, &copier) {
              (address, buffer) throws(KernelError) in
              try view.memory.readPages(at: address, into: buffer)
            }
          }
        }
        try writeObjects(copy, objects, objectReaders, &space.vmas, &copier)
        copier.flush()
      } catch { throw .copy(error) }
    }
    do throws(KernelError) {
      let read = try reader.finish()
      space.account(for: read)
      unchanged = read.unchangedCount
      for (position, reader) in objectReaders.enumerated() {
        let vma = objects.object(position).vma
        space.vmas[vma].take(unchanged: try reader.finish().unchangedCount)
      }
    } catch { throw .kernel(error) }
    return written
  }

  private func writeObjects(
    _ copy: borrowing FrozenCopy, _ objects: borrowing SharedObjectCopy, _ readers: [RoundReader],
    _ vmas: inout [VMARecord], _ copier: inout RoundCopier
  ) throws(CopyFailure) {
    var items = copy.items[objects.firstItem...]
    for (position, reader) in readers.enumerated() {
      let object = objects.object(position)
      copier.begin(object.id, reader)
      while let item = items.first, item.vma == position {
        items.removeFirst()
        if item.flags == .parent {
          try copier.takeFromParent(item.range)
          vmas[object.vma].pagesFromParent += item.range.pageCount
        } else {
          vmas[object.vma].pagesStored += try store(item, copy, &copier) {
            (offset, buffer) throws(KernelError) in
            try objects.read(position, at: offset, into: buffer)
          }
        }
      }
    }
  }

  private func store(
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
