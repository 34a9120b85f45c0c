internal import Kernel

/// Which pages wait for the freeze, instead of being stored in every round only to be written again
/// (the writable working set: Clark et al., Live Migration of Virtual Machines, 2005). A pure function
/// of what was found written.
///
/// A page that waits is not protected any more, so it stays written until the freeze finds it so: the
/// kernel keeps this debt. A live round takes it from its parent, in the version from before.
struct HotPages: Sendable {
  /// A page that was found written so many times in a row is hot.
  static let streak = 3
  /// Runs at most: each takes two calls of the kernel more in the scan of a live round.
  static let mostRuns = 4096

  /// What waits.
  private(set) var waiting = PopulatedSet()
  /// What the last rounds found written, newest last.
  private var found: [PopulatedSet] = []

  /// A live round found these pages written. Of a first round, to which all pages are new, nothing is
  /// to be told.
  mutating func observe(_ written: PopulatedSet) {
    found.append(written)
    if found.count > Self.streak - 1 { found.removeFirst() }
  }

  /// Decides what the next live round leaves alone.
  ///
  /// - Parameters:
  ///   - pending: what was written since the last round, or waits.
  ///   - held: what that round holds, which a page must be taken from.
  ///   - limit: pages that the freeze has time and memory for.
  mutating func decide(pending: PopulatedSet, held: PopulatedSet, limit: UInt64) {
    var hot = PopulatedSet()
    if found.count == Self.streak - 1 {
      hot = found.reduce(pending) { $0.intersection($1) }
    }
    waiting = waiting.union(hot).intersection(pending).intersection(held)
      .prefix(pages: limit, runs: Self.mostRuns)
  }
}
