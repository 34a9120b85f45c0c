internal import Kernel

/// What the last round holds of one stream: the process's memory, or a shared object.
final class StreamHistory {
  /// Its pages. Only these may the next round take from it.
  var held = PopulatedSet()
  /// What they were when they were stored last.
  let digests: PageDigests

  /// Whether `digests` has bytes of rounds that were lost: from then on everything is noted.
  private(set) var wasRolledBack = false
  /// Rounds that may yet turn out to be lost.
  private var unconfirmed: [Unconfirmed] = []

  private struct Unconfirmed {
    var round: Int
    /// What the round before it holds.
    var held: PopulatedSet
    /// What the round was to store. In any order.
    var stored: [PageRange] = []
  }

  init(digests: PageDigests) { self.digests = digests }

  /// Goes on where `other` ends, with digests of its own.
  func inherit(_ other: StreamHistory) {
    (held, unconfirmed, wasRolledBack) = (other.held, other.unconfirmed, other.wasRolledBack)
  }

  /// A round begins that may be lost, while `confirmed` rounds are known to be safe.
  func begin(round: Int, confirmed: Int) {
    unconfirmed.removeAll { $0.round <= confirmed }
    unconfirmed.append(Unconfirmed(round: round, held: held))
  }

  /// The round that began last, if it may be lost, stores these pages, or has taken their written bits.
  func willStore(_ range: PageRange) {
    if unconfirmed.isEmpty { return }
    let last = unconfirmed.count - 1
    if let end = unconfirmed[last].stored.last?.end, end == range.start {
      unconfirmed[last].stored[unconfirmed[last].stored.count - 1].end = range.end
    } else {
      unconfirmed[last].stored.append(range)
    }
  }

  /// Every round after `round` is lost. What they were to store is held by nobody: the next round
  /// stores it, written meanwhile or not. What none of them was to store is as it was before them.
  ///
  /// That goes for pages whose bytes were noted in `digests`, too: noted is what was to be stored, and
  /// only what is held may be taken from the parent.
  func rollBack(to round: Int) {
    let lost = unconfirmed.filter { $0.round > round }
    guard let first = lost.first else { return }
    held = first.held.subtracting(lost.flatMap(\.stored))
    wasRolledBack = true
    unconfirmed.removeAll { $0.round > round }
  }

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
    if let known = histories[id] { history.inherit(known) }
    histories[id] = history
    return history
  }

  /// Every round after `round` is lost.
  func rollBack(to round: Int) {
    for history in histories.values { history.rollBack(to: round) }
  }

  /// A round was written that holds `held` of the objects, by number: what is not in it is not there
  /// to be taken from it.
  func finish(_ held: [UInt64: PopulatedSet]) {
    histories = histories.filter { held[$0.key] != nil }
    for (id, pages) in held { histories[id]?.held = pages }
  }
}
