/// A round that is written and not published yet: neither synced, if it is to be, nor named. Dropped, it
/// is removed.
///
/// Sendable, because it has one owner and nothing else refers to what it holds.
package struct FinishedRound: ~Copyable, @unchecked Sendable {
  /// What it holds.
  package let totals: RoundTotals
  /// What its children need to know of it.
  package let asParent: ParentRound
  private let partial: PartialRound
  private let sync: Bool

  init(
    _ partial: consuming PartialRound, _ round: ParentRound, totals: RoundTotals, sync: Bool
  ) {
    self.totals = totals
    asParent = round
    self.partial = partial
    self.sync = sync
  }

  /// Syncs it, if that was asked for, and gives it its name: from then on it exists. Its parent must be
  /// published before.
  ///
  /// - Parameter beforePublishing: runs when only the directory's name is missing.
  /// - Throws: what could not be synced or renamed; the partial directory is removed then. If only the
  ///   very last sync of the session's directory fails, the round exists but may not survive a power cut.
  package consuming func publish(_ beforePublishing: () -> Void = {}) throws(ImageError) {
    let (round, sync) = (asParent, sync)
    if sync { try partial.syncFiles() }
    beforePublishing()
    try partial.publish(as: round, sync: sync)
  }
}
