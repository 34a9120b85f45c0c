internal import Images
internal import Kernel

/// The shared memory objects as the freeze found them: their part of the copied items, and their
/// open files in case the copy had no room for all.
struct SharedObjectCopy: ~Copyable {
  private let objects: [SharedObjects.Object]
  private let known: ObjectHistories
  private var files: [OpenObject] = []
  private var histories: [StreamHistory] = []
  /// Items from here on belong to objects; each names its object by position.
  let firstItem: Int
  /// Pages that were compared with what the chain holds.
  let pagesCompared: UInt64

  /// Compares every object that `members` map with what the chain holds, and copies what differs.
  init(
    _ members: [FrozenMember], _ copy: inout FrozenCopy, _ known: ObjectHistories,
    _ comparer: PageComparer, faults: EngineFaultPlan
  ) throws(RoundFailure) {
    self.known = known
    firstItem = copy.items.count
    objects = SharedObjects.list(members: members.map(\.described.addressSpace.vmas))
    for (position, object) in objects.enumerated() {
      let member = members[object.member].member
      let open: OpenObject
      let history: StreamHistory
      do throws(KernelError) {
        open = OpenObject(try member.view.process.open(object.linkName))
        history = try known.history(object.id, byteCount: try open.file.byteCount())
      } catch { throw .kernel(error) }
      _ = copy.beginSection()
      try SharedObjects.scan(open, history, comparer, faults: faults) {
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
      histories.append(history)
    }
    pagesCompared = comparer.takeCounters().pages
  }

  func object(_ position: Int) -> SharedObjects.Object { objects[position] }

  func history(_ position: Int) -> StreamHistory { histories[position] }

  /// A round begins that may be lost.
  func begin(round: Int, confirmed: Int) {
    for history in histories { history.begin(round: round, confirmed: confirmed) }
  }

  /// The round holds `held` of the objects, by number.
  func finish(_ held: [UInt64: PopulatedSet]) { known.finish(held) }

  /// One for each object, by position, for chunks that come with their pages.
  func readers() -> [RoundReader] { histories.map { RoundReader(nil, $0) } }

  func read(_ position: Int, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(KernelError) -> ProcessMemory.ReadResult
  {
    try SharedObjects.readPages(of: files[position].file, at: offset, into: buffer)
  }
}
