internal import Images
internal import Kernel

// The scan of a process that stands still, by several threads. It asks for what is not as it was when
// it was protected (holes, what was written, what is not tracked): all else is unchanged, and goes
// unmentioned.
extension DirtyTracker {
  /// Hands out the pages that the last round has to hold, ascending: by the index of their VMA.
  ///
  /// - Parameter held: what the round before holds.
  mutating func scanFrozen<Failure: Error>(
    _ records: [VMARecord], held: PopulatedSet, _ crew: CrewScanner,
    _ body: (Int, PageRange, Fate) throws(Failure) -> Void
  ) throws(ScanFailure<Failure>) {
    let pieces = cut(records, held, crew)
    do throws(KernelError) {
      _ = try crew.scan(
        pieces.map { piece in
          .init(range: piece.range, asksIfStill: piece.isFull && still.contains(piece.range))
        }, of: pagemap)
    } catch { throw .kernel(error) }
    var cursor = PopulatedSet.Cursor(held)
    var waiting = PopulatedSet.Cursor(hot.waiting)
    var next = 0
    var firstWrites: UInt64 = 0
    for (index, record) in records.enumerated() {
      guard isScannedByCrew(record) else {
        try scan(record, isFrozen: true, previous: &cursor) { (range, fate) throws(Failure) in
          try body(index, range, fate)
        }
        continue
      }
      while next < pieces.count, pieces[next].vma == index {
        do throws(Failure) {
          try handOut(crew.scanned(next), pieces[next].range, &cursor, &firstWrites) {
            (range, fate) throws(Failure) in
            if fate == .fromParent { assertNothingWaits(in: range, &waiting) }
            try body(index, range, fate)
          }
        } catch { throw .body(error) }
        next += 1
      }
    }
    // What waited was not protected: writing it took no fault.
    firstWriteCount += firstWrites - min(firstWrites, hot.waiting.pageCount)
  }

  /// Pages that a freeze would find written now, and the runs that they form.
  ///
  /// It walks what the freeze walks, in the same way: what that costs is measured here.
  mutating func pending(_ records: [VMARecord], held: PopulatedSet, _ crew: CrewScanner)
    throws(KernelError) -> PendingPages
  {
    let began = MonotonicClock.now
    let pieces = cut(records, held, crew)
    let cost = try crew.scan(
      pieces.map { .init(range: $0.range, asksIfStill: $0.isFull) }, of: pagemap)
    var pending = PendingPages()
    pendingSet = PopulatedSet()
    still.forget()
    for (index, piece) in pieces.enumerated() {
      let scanned = crew.scanned(index)
      if scanned.isStill { still.insert(piece.range) }
      for region in scanned.regions {
        guard region.categories.contains(.written), Self.isPopulated(region),
          Self.holdsData(region)
        else { continue }
        pending.pageCount += region.range.pageCount
        pendingSet.append(region.range)
      }
    }
    // What these hold was counted by the round; only the time is asked for.
    var cursor = PopulatedSet.Cursor(held)
    for record in records where record.treatment == .privatePagesEachRound {
      do throws(ScanFailure<Never>) {
        try scan(record, isFrozen: true, previous: &cursor) { _, _ in }
      } catch {
        if case .kernel(let cause) = error { throw cause }
      }
    }
    pending.runCount = UInt64(pendingSet.runs.count)
    pending.scanNanoseconds = MonotonicClock.now - began
    pending.frozenScanNanoseconds =
      pending.scanNanoseconds - cost.wallNanoseconds + cost.expectedNanoseconds
    return pending
  }

  /// What waited for the freeze is stored in it, or gone: nothing of it comes from the parent.
  private func assertNothingWaits(in range: PageRange, _ waiting: inout PopulatedSet.Cursor) {
    #if DEBUG
      guard faults.isEmpty else { return }
      waiting.split(range) { piece, isWaiting in
        assert(!isWaiting, "\(hexAddress(piece.start)) waited for the freeze and was forgotten")
      }
    #endif
  }

  /// Without a registration, or with protection from before it, there are no trustworthy written
  /// bits: all of such a VMA is taken.
  private func isScannedByCrew(_ record: VMARecord) -> Bool {
    record.treatment == .tracked && !isSuspect(record.range)
  }

  private func cut(_ records: [VMARecord], _ held: PopulatedSet, _ crew: CrewScanner)
    -> [PieceCutter.Piece]
  {
    var cutter = PieceCutter(held, pieceLimits)
    for (index, record) in records.enumerated() where isScannedByCrew(record) {
      cutter.cut(record.range, vma: index)
    }
    if crew.hasShortWay { return cutter.pieces }
    return cutter.pieces.map { .init(range: $0.range, vma: $0.vma, isFull: false) }
  }

  private func handOut<Failure: Error>(
    _ scanned: CrewScanner.Scanned, _ range: PageRange, _ cursor: inout PopulatedSet.Cursor,
    _ firstWrites: inout UInt64, _ body: (PageRange, Fate) throws(Failure) -> Void
  ) throws(Failure) {
    var position = range.start
    for region in scanned.regions {
      try takeUnchanged(PageRange(start: position, end: region.range.start), &cursor, body)
      try take(region, &cursor, &firstWrites, body)
      position = region.range.end
    }
    let end = max(position, min(scanned.end, range.end))
    try takeUnchanged(PageRange(start: position, end: end), &cursor, body)
    // Where nobody looked, the address space is gone, which is asked after the scan.
    if end < range.end { try body(PageRange(start: end, end: range.end), .store) }
  }

  private func take<Failure: Error>(
    _ region: PageRegion, _ cursor: inout PopulatedSet.Cursor, _ firstWrites: inout UInt64,
    _ body: (PageRange, Fate) throws(Failure) -> Void
  ) throws(Failure) {
    let categories = region.categories
    guard Self.isPopulated(region) else {
      if faults.has(.forgetDropped) {
        try cursor.split(region.range) { (piece, isHeld) throws(Failure) in
          if isHeld { try body(piece, .fromParent) }
        }
      }
      return
    }
    let isTracked =
      categories.contains(.writeProtectAllowed) || faults.has(.ignoreLostRegistration)
    let isWritten =
      categories.contains(.written)
      && (categories.contains(.writeProtectAllowed) || !faults.has(.ignoreLostRegistration))
    if isWritten || !isTracked {
      try store(region, body)
      cursor.split(region.range) { piece, isHeld in
        if isHeld, isWritten { firstWrites += piece.pageCount }
      }
    } else if Self.holdsData(region) {
      // Swapped out, unchanged.
      try takeUnchanged(region.range, &cursor, body)
    }
  }

  private func takeUnchanged<Failure: Error>(
    _ range: PageRange, _ cursor: inout PopulatedSet.Cursor,
    _ body: (PageRange, Fate) throws(Failure) -> Void
  ) throws(Failure) {
    if range.isEmpty { return }
    try cursor.split(range) { (piece, isHeld) throws(Failure) in
      if isHeld, !fixedBuffers.isEmpty {
        try splitFixed(piece, body)
      } else {
        try body(piece, isHeld ? .fromParent : .store)
      }
    }
  }

  private static func isPopulated(_ region: PageRegion) -> Bool {
    !region.categories.isDisjoint(with: .populated)
  }
}

/// Pieces in which nothing was written when they were looked at last.
final class StillPieces {
  private var ranges: Set<PageRange> = []

  func contains(_ range: PageRange) -> Bool { ranges.contains(range) }
  func insert(_ range: PageRange) { ranges.insert(range) }
  func forget() { ranges.removeAll(keepingCapacity: true) }
}

/// What waits to be copied.
struct PendingPages: Sendable, Equatable {
  /// Pages written since the last scan.
  var pageCount: UInt64 = 0
  /// Runs of such pages: each is a read of its own.
  var runCount: UInt64 = 0
  /// Pages of shared objects that a freeze compares with what the chain holds.
  var comparedPageCount: UInt64 = 0
  /// What finding them took, and what it would take in a freeze (ns).
  var scanNanoseconds: UInt64 = 0
  var frozenScanNanoseconds: UInt64 = 0

  mutating func add(_ other: PendingPages) {
    pageCount += other.pageCount
    runCount += other.runCount
    comparedPageCount += other.comparedPageCount
    scanNanoseconds += other.scanNanoseconds
    frozenScanNanoseconds += other.frozenScanNanoseconds
  }
}
