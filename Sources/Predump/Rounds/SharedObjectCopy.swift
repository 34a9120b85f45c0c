internal import Images
internal import Kernel

/// The shared memory objects as the freeze found them: their part of the copied items, and their
/// open files in case the copy had no room for all.
struct SharedObjectCopy: ~Copyable {
  private let objects: [SharedObjects.Object]
  private var files: [OpenObject] = []
  private var histories: [StreamHistory] = []
  /// Items from here on belong to objects; each names its object by position.
  let firstItem: Int

  /// Compares every object that `vmas` map with what the chain holds, and copies what differs.
  init(
    _ vmas: [VMARecord], _ view: borrowing TargetView, _ copy: inout FrozenCopy,
    _ history: inout ChainHistory, _ comparer: PageComparer, faults: EngineFaultPlan
  ) throws(RoundFailure) {
    firstItem = copy.items.count
    objects = SharedObjects.list(vmas)
    for (position, object) in objects.enumerated() {
      let open: OpenObject
      let known: StreamHistory
      do throws(KernelError) {
        open = OpenObject(try view.process.open(object.linkName))
        known = try history.object(object.id, byteCount: try open.file.byteCount())
      } catch { throw .kernel(error) }
      copy.beginStream()
      try SharedObjects.scan(open, known, comparer, faults: faults) {
        (range, fate) throws(CopyFailure) in
        switch fate {
        case .fromParent: copy.takeFromParent(range, vma: position)
        case .store:
          try copy.store(range, vma: position, flags: .present) {
            (offset, buffer) throws(KernelError) in
            try SharedObjects.readPages(of: open.file, at: offset, into: buffer)
          }
        }
      }
      files.append(open)
      histories.append(known)
    }
  }

  func object(_ position: Int) -> SharedObjects.Object { objects[position] }

  /// One for each object, by position, for chunks that come with their pages.
  func readers() -> [RoundReader] { histories.map { RoundReader(nil, $0) } }

  func read(_ position: Int, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(KernelError) -> ProcessMemory.ReadResult
  {
    try SharedObjects.readPages(of: files[position].file, at: offset, into: buffer)
  }
}
