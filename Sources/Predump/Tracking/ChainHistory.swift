internal import Kernel

/// What the last round holds of one stream: the process's memory, or a shared object.
final class StreamHistory {
  /// Its pages. Only these may the next round take from it.
  var held = PopulatedSet()
  /// What they were when they were stored last.
  let digests: PageDigests

  init(digests: PageDigests) { self.digests = digests }

  /// Of a process's own memory: 32 MiB of digests at most, whatever its size. What a process writes
  /// again and again is less than the 8 GiB that they cover.
  static func ofProcess(_ faults: EngineFaultPlan) throws(KernelError) -> StreamHistory {
    StreamHistory(digests: try PageDigests(slotCount: 1 << 21, faults: faults))
  }
}

/// What the chain holds of the shared objects that processes map. For the engine's thread alone.
final class ObjectHistories {
  /// Pages of an object whose digests are kept at most: 256 MiB of them, for 64 GiB.
  private static let slotLimit: UInt64 = 1 << 24

  private var histories: [UInt64: StreamHistory] = [:]
  private let faults: EngineFaultPlan

  init(faults: EngineFaultPlan) { self.faults = faults }

  /// What the chain holds of object `id`, which is `byteCount` bytes long now.
  func history(_ id: UInt64, byteCount: UInt64) throws(KernelError) -> StreamHistory {
    let pages = min(byteCount / pageBytes + 1, Self.slotLimit)
    if let known = histories[id], known.digests.slotCount >= pages { return known }
    // New, or grown beyond its digests: all of it is stored then. Half as much again, so that an
    // object that grows steadily is not stored again and again.
    let history = StreamHistory(
      digests: try PageDigests(
        slotCount: min(pages + pages / 2, Self.slotLimit), faults: faults))
    if let known = histories[id] { history.held = known.held }
    histories[id] = history
    return history
  }

  /// A round was written that holds `held` of the objects, by number: what is not in it is not there
  /// to be taken from it.
  func finish(_ held: [UInt64: PopulatedSet]) {
    histories = histories.filter { held[$0.key] != nil }
    for (id, pages) in held { histories[id]?.held = pages }
  }
}
