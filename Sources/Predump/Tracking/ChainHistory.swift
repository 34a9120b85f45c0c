internal import Kernel

/// What the last round holds of one stream: the process's memory, or a shared object.
final class StreamHistory {
  /// Its pages. Only these may the next round take from it.
  fileprivate(set) var held = PopulatedSet()
  /// What they were when they were stored last.
  let digests: PageDigests

  init(digests: PageDigests) { self.digests = digests }
}

/// What the chain holds, as far as the next round has to know it.
struct ChainHistory {
  /// Pages of private memory whose digests are kept: 32 MiB of them, whatever the process's size. What
  /// a process writes again and again is less than the 8 GiB that they cover.
  private static let processSlots: UInt64 = 1 << 21
  /// Pages of a shared object whose digests are kept at most: 256 MiB of them, for 64 GiB.
  private static let objectSlotLimit: UInt64 = 1 << 24

  let process: StreamHistory
  private var objects: [UInt64: StreamHistory] = [:]
  private let faults: EngineFaultPlan

  init(faults: EngineFaultPlan) throws(KernelError) {
    self.faults = faults
    process = StreamHistory(
      digests: try PageDigests(slotCount: Self.processSlots, faults: faults))
  }

  /// What the chain holds of the shared object `id`, which is `byteCount` bytes long now.
  mutating func object(_ id: UInt64, byteCount: UInt64) throws(KernelError) -> StreamHistory {
    let pages = min(byteCount / pageBytes + 1, Self.objectSlotLimit)
    if let known = objects[id], known.digests.slotCount >= pages { return known }
    // New, or grown beyond its digests: all of it is stored then. Half as much again, so that an
    // object that grows steadily is not stored again and again.
    let history = StreamHistory(
      digests: try PageDigests(
        slotCount: min(pages + pages / 2, Self.objectSlotLimit), faults: faults))
    if let known = objects[id] { history.held = known.held }
    objects[id] = history
    return history
  }

  /// A round was written: what is not in it is not there to be taken from it.
  mutating func finish(_ holdings: RoundHoldings) {
    process.held = holdings.process
    objects = objects.filter { holdings.objects[$0.key] != nil }
    for (id, held) in holdings.objects { objects[id]?.held = held }
  }
}

/// What a round holds, stored or taken from its parent.
struct RoundHoldings {
  var process = PopulatedSet()
  /// By the object's number; offsets in bytes.
  var objects: [UInt64: PopulatedSet] = [:]
}
