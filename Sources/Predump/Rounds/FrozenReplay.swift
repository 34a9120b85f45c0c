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

  /// Copies the data of every object that `vmas` map.
  init(_ vmas: [VMARecord], _ view: borrowing TargetView, _ copy: inout FrozenCopy)
    throws(RoundFailure)
  {
    firstItem = copy.items.count
    let objects = SharedObjects.list(vmas)
    var files: [Int: OpenObject] = [:]
    for (position, object) in objects.enumerated() {
      let file: File
      do throws(KernelError) { file = try view.process.open(object.linkName) } catch {
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

/// Writes what a freeze copied, from memory, or from the frozen process where memory was short.
struct FrozenReplay {
  let pid: Int32

  func write(
    _ copy: borrowing FrozenCopy, _ objects: borrowing SharedObjectCopy, _ vmas: inout [VMARecord],
    _ view: borrowing TargetView, _ pipeline: ChunkPipeline, _ writer: consuming RoundWriter
  ) throws(RoundFailure) -> RoundWriter {
    // Not to be interrupted: what was copied is the only complete image.
    var copier = RoundCopier(pipeline: pipeline, cancellation: nil, debt: nil)
    return try pipeline.write(with: writer) { () throws(RoundFailure) in
      do throws(CopyFailure) {
        for item in copy.items[..<objects.firstItem] {
          if item.flags == .parent {
            try copier.takeFromParent(item.range)
            vmas[item.vma].pagesFromParent += item.range.pageCount
          } else {
            vmas[item.vma].pagesStored += try store(item, copy, &copier) {
              (address, buffer) throws(KernelError) in
              try view.memory.readPages(at: address, into: buffer)
            }
          }
        }
        copier.flush()
        try writeObjects(copy, objects, &vmas, pipeline, &copier)
      } catch { throw .copy(error) }
    }
  }

  private func writeObjects(
    _ copy: borrowing FrozenCopy, _ objects: borrowing SharedObjectCopy, _ vmas: inout [VMARecord],
    _ pipeline: ChunkPipeline, _ copier: inout RoundCopier
  ) throws(CopyFailure) {
    var items = copy.items[objects.firstItem...]
    for position in 0..<objects.count {
      let object = objects.object(position)
      pipeline.beginSharedObject(object.id)
      while let item = items.first, item.vma == position {
        items.removeFirst()
        vmas[object.vma].pagesStored += try store(item, copy, &copier) {
          (offset, buffer) throws(KernelError) in
          try objects.read(position, at: offset, into: buffer)
        }
      }
      copier.flush()
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
