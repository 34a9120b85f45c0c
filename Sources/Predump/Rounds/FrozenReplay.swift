internal import Images
internal import Kernel

/// Writes what a freeze copied, from memory, or from the frozen process where memory was short.
struct FrozenReplay {
  /// What the chain holds of the process's own memory.
  let history: StreamHistory

  /// - Parameter unchanged: pages that were copied though the chain holds the same bytes.
  func write(
    _ copy: borrowing FrozenCopy, _ objects: borrowing SharedObjectCopy, _ vmas: inout [VMARecord],
    _ view: borrowing TargetView, _ pipeline: ChunkPipeline, _ writer: consuming RoundWriter,
    unchanged: inout UInt64
  ) throws(RoundFailure) -> RoundWriter {
    // Not to be interrupted: what was copied is the only complete image.
    var copier = RoundCopier(
      pipeline: pipeline, history: history, cancellation: nil, debt: nil)
    defer { unchanged = copier.counters.unchanged }
    return try pipeline.write(with: writer) { () throws(RoundFailure) in
      do throws(CopyFailure) {
        for item in copy.items[..<objects.firstItem] {
          if item.flags == .parent {
            try copier.takeFromParent(item.range)
            vmas[item.vma].pagesFromParent += item.range.pageCount
          } else {
            vmas[item.vma].count(
              try store(item, copy, &copier) { (address, buffer) throws(KernelError) in
                try view.memory.readPages(at: address, into: buffer)
              })
          }
        }
        try writeObjects(copy, objects, &vmas, &copier)
        copier.flush()
      } catch { throw .copy(error) }
    }
  }

  private func writeObjects(
    _ copy: borrowing FrozenCopy, _ objects: borrowing SharedObjectCopy, _ vmas: inout [VMARecord],
    _ copier: inout RoundCopier
  ) throws(CopyFailure) {
    var items = copy.items[objects.firstItem...]
    for position in 0..<objects.count {
      let object = objects.object(position)
      copier.begin(object.id, objects.history(position))
      while let item = items.first, item.vma == position {
        items.removeFirst()
        if item.flags == .parent {
          try copier.takeFromParent(item.range)
          vmas[object.vma].pagesFromParent += item.range.pageCount
        } else {
          vmas[object.vma].count(
            try store(item, copy, &copier) { (offset, buffer) throws(KernelError) in
              try objects.read(position, at: offset, into: buffer)
            })
        }
      }
    }
  }

  private func store(
    _ item: FrozenCopy.Item, _ copy: borrowing FrozenCopy, _ copier: inout RoundCopier,
    orRead read: (UInt64, UnsafeMutableRawBufferPointer) throws(KernelError)
      -> ProcessMemory.ReadResult
  ) throws(CopyFailure) -> StoredPages {
    try copier.store(item.range, flags: item.flags) { (address, buffer) throws(KernelError) in
      item.spoolOffset == nil
        ? try read(address, buffer) : .pages(copy.fetch(item, at: address, into: buffer))
    }
  }
}
