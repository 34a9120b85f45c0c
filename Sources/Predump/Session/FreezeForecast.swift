internal import Images
internal import Kernel

/// What a freeze would find and how long it would take now, looked at after each live round.
struct FreezeForecast {
  private var estimate = FreezeEstimate()
  private let rehearsal: CopyRehearsal
  /// After each live round: pages that a freeze would have had to copy.
  private(set) var pendingHistory: [UInt64] = []
  /// The freeze that a last round would take now, without sending it (ns).
  private(set) var nanoseconds: UInt64 = 0

  /// - Parameter copyThreads: threads that copy in a freeze.
  init(copyThreads: Int) throws(KernelError) {
    estimate.copyThreads = copyThreads
    rehearsal = try CopyRehearsal()
  }

  /// Takes into account what a live round took.
  mutating func observe(_ round: borrowing LiveRound.Outcome) {
    estimate.observeComparison(
      bytes: round.compared.bytes, nanoseconds: round.compared.nanoseconds)
    let copied = round.counters
    estimate.observeCopy(bytes: copied.bytes, reads: copied.reads, nanoseconds: copied.nanoseconds)
  }

  /// A live round is written; `look` tells what it left.
  mutating func addRound() { pendingHistory.append(0) }

  /// Looks at the processes as the last live round left them, or some time after it.
  ///
  /// - Returns: what a freeze would find.
  mutating func look(
    at tree: TargetTree, _ members: [RoundMember], _ scanner: CrewScanner, _ crew: ThreadCrew
  ) throws(PredumpError) -> PendingPages {
    let began = MonotonicClock.now
    let (pending, threads) = try tree.pending(members, scanner)
    let spent = MonotonicClock.now - began - pending.scanNanoseconds
    estimate.observeScan(nanoseconds: spent + pending.frozenScanNanoseconds)
    if let copied = tree.target.rehearse(rehearsal, crew) {
      estimate.observeRehearsal(pages: copied.pages, nanoseconds: copied.nanoseconds)
    }
    pendingHistory[pendingHistory.count - 1] = pending.pageCount
    nanoseconds = estimate.nanoseconds(
      pages: pending.pageCount, reads: pending.runCount, threads: threads,
      comparedPages: pending.comparedPageCount)
    return pending
  }

  /// How long a last round would be on its way to the receiver (ns), by what it has acknowledged.
  ///
  /// - Parameter rounds: all that were sent.
  mutating func sendingNanoseconds(_ link: ImageLink, _ rounds: [RoundReport]) -> UInt64 {
    for answer in link.takeAcknowledgements() {
      guard answer.round <= rounds.count else { continue }
      let totals = rounds[answer.round - 1].totals
      estimate.observeSending(
        pages: totals.pagesStored, bytes: totals.payloadBytes, nanoseconds: answer.nanoseconds)
    }
    return estimate.sendingNanoseconds(pages: pendingHistory.last ?? 0)
  }

  /// Pages, each a read of its own, that a freeze could copy in so much time.
  func pages(in nanoseconds: UInt64) -> UInt64 { estimate.pages(in: nanoseconds) }

  /// The rounds after the first `count` are void.
  mutating func rollBack(to count: Int) {
    pendingHistory.removeSubrange(min(count, pendingHistory.count)...)
  }
}
