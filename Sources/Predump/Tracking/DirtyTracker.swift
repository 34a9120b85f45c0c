internal import Images
internal import Kernel
internal import SystemPackage

/// Finds the pages that changed since the last round.
///
/// Per VMA and never across, because one scan over mixed VMAs loses what it has protected already.
struct DirtyTracker: ~Copyable {
  /// Nil until `begin`: then every page counts as written.
  private var registration: Registration?
  private let scanner: PagemapScanner
  let faults: EngineFaultPlan
  /// What the scans of a live round owe to it; nil outside of debug builds.
  let debt: ScanDebt?
  /// Ranges that were registered without their old protection being cleared.
  private var suspects: [PageRange] = []
  /// Ranges that were registered for the last round, with whatever came to lie in them meanwhile.
  private var registered: [PageRange] = []

  /// VMAs of treatment `.tracked` at that time.
  private var tracked: [PageRange] = []
  /// Pages that were found written of those that a round had protected: each was a page fault.
  var firstWriteCount: UInt64 = 0

  /// VMAs that were registered before memdump came: they belong to another userfaultfd, whose bits
  /// are neither ours to trust nor ours to reset.
  private var foreign: [PageRange]?
  /// Pieces in which nothing was written when they were looked at last.
  let still = StillPieces()
  /// What waits for the freeze.
  var hot = HotPages()
  /// What was found written when that was asked last.
  var pendingSet = PopulatedSet()
  /// How pieces are cut.
  let pieceLimits: PieceLimits
  /// Buffers that devices or the kernel may write to unseen: stored in the freeze in any case.
  var fixedBuffers: [PageRange] = []

  /// A noncopyable optional in a box of its own.
  private final class Registration {
    let userfaultfd: Userfaultfd
    init(_ userfaultfd: consuming Userfaultfd) { self.userfaultfd = userfaultfd }
  }

  init(pagemap: consuming File, tuning: EngineTuning) {
    faults = tuning.faults
    pieceLimits = tuning.pieceLimits
    debt = ScanDebt.ofThisBuild()
    scanner = PagemapScanner(
      pagemap: pagemap, vectorCount: tuning.vectorCount, faults: tuning.faults, debt: debt)
  }

  /// Tracks through `userfaultfd`, which is the process's, from now on.
  mutating func begin(_ userfaultfd: consuming Userfaultfd) {
    registration = Registration(userfaultfd)
  }

  /// Ends tracking: whoever else has a copy of the userfaultfd, as a child may that was forked in the
  /// midst of the injected call, keeps no tracking alive by that.
  ///
  /// - Parameter maps: tells what is mapped now.
  mutating func end(_ maps: [MapsEntry]) {
    guard let registration else { return }
    // Only what we have registered: kernels before 6.17 take a VMA from another userfaultfd, too.
    for range in MappingEdges.touched(by: tracked + registered, maps) {
      guard (try? scanner.isRegistered(range.start)) ?? false else { continue }
      // What went meanwhile has no tracking to end.
      try? registration.userfaultfd.unregister(range)
    }
    self.registration = nil
  }

  /// What is to be done with a run of pages.
  enum Fate {
    /// The bytes are to be stored.
    case store
    /// Unchanged since the round before, which holds it.
    case fromParent
  }

  /// VMAs that the kernel would not track, and why.
  struct Refusal: Sendable {
    var range: PageRange
    var error: KernelError
  }

  /// Registers every VMA of treatment `.tracked` that is not registered yet, or no longer.
  ///
  /// - Parameters:
  ///   - clears: whether protection that is older than the registration is cleared, which walks all page
  ///     tables. Where the chain holds nothing yet, it says nothing wrong: every page is stored.
  ///   - maps: tells what is mapped now, which `records` may be too old for.
  /// - Returns: those that cannot be; their treatment in `records` is changed.
  mutating func register(
    _ records: inout [VMARecord], clears: Bool = true, maps: () throws(KernelError) -> [MapsEntry]
  ) throws(KernelError) -> [Refusal] {
    guard let registration else { return [] }
    if foreign == nil { foreign = try registeredRanges(records) }
    exclude(&records)
    defer { tracked = records.filter { $0.treatment == .tracked }.map(\.range) }
    var refusals: [Refusal] = []
    try releaseOthers(records, registration)
    let runs = try unregisteredRuns(records)
    (suspects, registered) = ([], [])
    if runs.isEmpty { return [] }
    let current = try maps()
    for run in runs {
      let span = PageRange(
        start: records[run.lowerBound].range.start, end: records[run.upperBound - 1].range.end)
      // One call for many VMAs, which one refused VMA refuses for all: one by one then.
      if run.count > 1,
        startTracking(MappingEdges.widened(span, current), registration, clears) == nil
      {
        continue
      }
      for index in run {
        let range = records[index].range
        guard let error = startTracking(MappingEdges.widened(range, current), registration, clears)
        else {
          continue
        }
        // ENOMEM: the address space is gone, or (also ENOENT) the VMA went meanwhile; the scan
        // tells. EBUSY: another userfaultfd holds it. Else: a kind that cannot be tracked.
        if error.errno == .noMemory || error.errno == .noSuchFileOrDirectory { continue }
        records[index].treatment = .wholeInFreeze
        refusals.append(Refusal(range: range, error: error))
      }
    }
    try joinHalves(maps, registration, clears)
    return refusals
  }

  /// Registers what continues a registered VMA, at once: the shorter a mapping is in two halves, the
  /// less likely the process finds it so. The next round's scan meets these pages as written.
  private mutating func joinHalves(
    _ maps: () throws(KernelError) -> [MapsEntry], _ registration: Registration, _ clears: Bool
  ) throws(KernelError) {
    for range in MappingEdges.continuations(of: registered, try maps()) {
      // What cannot be registered stays as it is.
      if try !scanner.isRegistered(range.start) { _ = startTracking(range, registration, clears) }
    }
  }

  /// Changes the treatment of VMAs that belong to another userfaultfd.
  func exclude(_ records: inout [VMARecord]) {
    guard let foreign, !foreign.isEmpty else { return }
    for index in records.indices where records[index].treatment == .tracked {
      if foreign.contains(where: { !$0.intersection(records[index].range).isEmpty }) {
        records[index].treatment = .wholeInFreeze
      }
    }
  }

  private func registeredRanges(_ records: [VMARecord]) throws(KernelError) -> [PageRange] {
    var ranges: [PageRange] = []
    for record in records where record.treatment == .tracked {
      if try scanner.isRegistered(record.range.start) { ranges.append(record.range) }
    }
    return ranges
  }

  /// Ends tracking of VMAs that are not to be tracked. They come to be so when the target maps a file
  /// or a shared object between the list of its VMAs and their registration, whose range it lies in
  /// then; a page that is protected there makes a later MADV_GUARD_INSTALL of the target hang.
  private func releaseOthers(_ records: [VMARecord], _ registration: Registration)
    throws(KernelError)
  {
    for record in records where record.treatment != .tracked {
      let mayBe = registered.contains { !$0.intersection(record.range).isEmpty }
      guard mayBe, try scanner.isRegistered(record.range.start) else { continue }
      do throws(KernelError) { try registration.userfaultfd.unregister(record.range) } catch {
        // It went, or changed, meanwhile: the next round sees what is there then.
      }
    }
  }

  /// Registers `range`, and `clears` what protection it may have kept from an earlier registration.
  private mutating func startTracking(
    _ range: PageRange, _ registration: Registration, _ clears: Bool
  ) -> KernelError? {
    do throws(KernelError) { try registration.userfaultfd.register(range) } catch { return error }
    registered.append(range)
    if !clears { return nil }
    #if DEBUG
      if faults.has(.keepStaleProtection) { return nil }
    #endif
    do throws(KernelError) {
      try registration.userfaultfd.clearProtection(range)
      #if DEBUG
        if faults.has(.ignoreRemapping) { try protectUnseen(range) }
      #endif
      return nil
    } catch {
      // Registered, but perhaps with stale bits: whatever lies here is cleared in the next round.
      suspects.append(range)
      return error
    }
  }

  /// Hands out the pages of one VMA that this round has to hold, ascending.
  ///
  /// - Parameters:
  ///   - isFrozen: the process stands still: nothing needs protection any more, and what is left
  ///     to the freeze is taken too.
  ///   - previous: what the round before holds.
  mutating func scan<Failure: Error>(
    _ record: VMARecord, isFrozen: Bool, previous: inout PopulatedSet.Cursor,
    _ body: (PageRange, Fate) throws(Failure) -> Void
  ) throws(ScanFailure<Failure>) {
    switch record.treatment {
    case .tracked:
      #if DEBUG
        if faults.breakScans {
          return try scanFaultily(record.range, isFrozen: isFrozen, previous: &previous, body)
        }
      #endif
      if isFrozen {
        try scanTracked(record.range, isFrozen: true, previous: &previous, body)
      } else {
        try scanLive(record.range, previous: &previous, body)
      }
    case .privatePagesEachRound:
      try scanner.scan(record.range, filter: .ownPages, protect: false) {
        (region) throws(Failure) in try store(region, body)
      }
    case .wholeInFreeze:
      if isFrozen {
        try scanner.scan(record.range, filter: .populated, protect: false) {
          (region) throws(Failure) in try store(region, body)
        }
      }
    case .wholeEachRound:
      do throws(Failure) { try body(record.range, .store) } catch { throw .body(error) }
    // Shared objects are read through themselves: see `SharedObjects.scan`.
    case .comparedInFreeze, .fromFile, .fromKernel, .unreadable: break
    }
  }

  /// Ends a live round: whatever its scans took the written bit of must be in it.
  func assertDebtIsPaid() {
    guard faults.isEmpty, let unpaid = debt?.settle() else { return }
    assertionFailure(
      "pages from \(hexAddress(unpaid.start)) to \(hexAddress(unpaid.end)) were scanned and lost")
  }

  /// Passes over what waits for the freeze: it is not protected, and so stays written.
  private mutating func scanLive<Failure: Error>(
    _ range: PageRange, previous: inout PopulatedSet.Cursor,
    _ body: (PageRange, Fate) throws(Failure) -> Void
  ) throws(ScanFailure<Failure>) {
    var waiting = PopulatedSet.Cursor(hot.waiting, from: range.start)
    var cursor = previous
    try waiting.split(range) { (piece, isWaiting) throws(ScanFailure<Failure>) in
      if !isWaiting {
        try scanTracked(piece, isFrozen: false, previous: &cursor, body)
        return
      }
      #if DEBUG
        if faults.has(.forgetWaiting) {
          try scanner.scan(piece, filter: .populated, protect: true) { (_) throws(Failure) in }
        }
      #endif
      do throws(Failure) {
        try cursor.split(piece) { (part, isHeld) throws(Failure) in
          try body(part, isHeld ? .fromParent : .store)
        }
      } catch { throw ScanFailure<Failure>.body(error) }
    }
    previous = cursor
  }

  /// What is scanned, for other scanners.
  var pagemap: Pagemap { scanner.pagemap }

  private mutating func scanTracked<Failure: Error>(
    _ range: PageRange, isFrozen: Bool, previous: inout PopulatedSet.Cursor,
    _ body: (PageRange, Fate) throws(Failure) -> Void
  ) throws(ScanFailure<Failure>) {
    var cursor = previous
    var firstWrites: UInt64 = 0
    let isSuspect = isSuspect(range)
    try scanner.scan(range, filter: .populated, protect: !isFrozen) {
      (region) throws(Failure) in
      // Without a registration (lost since the last round), or with protection from before it, there
      // are no trustworthy written bits.
      let isTracked = region.categories.contains(.writeProtectAllowed) && !isSuspect
      if region.categories.contains(.written) || !isTracked {
        try store(region, body)
        cursor.split(region.range) { piece, isHeld in
          if isHeld, isTracked { firstWrites += piece.pageCount }
        }
      } else if Self.holdsData(region) {
        try cursor.split(region.range) { (piece, isHeld) throws(Failure) in
          if isHeld, isFrozen, !fixedBuffers.isEmpty {
            try splitFixed(piece, body)
          } else {
            try body(piece, isHeld ? .fromParent : .store)
          }
        }
      }
    }
    previous = cursor
    firstWriteCount += firstWrites
  }

  /// Takes what lies in fixed buffers out of what the parent holds.
  func splitFixed<Failure: Error>(
    _ range: PageRange, _ body: (PageRange, Fate) throws(Failure) -> Void
  ) throws(Failure) {
    var buffers = PopulatedSet()
    for buffer in fixedBuffers {
      // Buffers may overlap: each page once.
      let start = max(buffer.start, buffers.runs.last?.end ?? 0)
      buffers.append(PageRange(start: start, end: max(start, buffer.end)))
    }
    var cursor = PopulatedSet.Cursor(buffers)
    try cursor.split(range) { (piece, isFixed) throws(Failure) in
      try body(piece, isFixed ? .store : .fromParent)
    }
  }

  func store<Failure: Error>(
    _ region: PageRegion, _ body: (PageRange, Fate) throws(Failure) -> Void
  ) throws(Failure) {
    if Self.holdsData(region) { try body(region.range, .store) }
  }

  // A set that is named: one made of a literal is built anew for every region.
  static func holdsData(_ region: PageRegion) -> Bool {
    region.categories.isDisjoint(with: .dataless)
  }

  func isSuspect(_ range: PageRange) -> Bool {
    suspects.contains { !$0.intersection(range).isEmpty }
  }

  private func unregisteredRuns(_ records: [VMARecord]) throws(KernelError) -> [Range<Int>] {
    var runs: [Range<Int>] = []
    for (index, record) in records.enumerated() where record.treatment == .tracked {
      if !isSuspect(record.range), try scanner.isRegistered(record.range.start) { continue }
      if let last = runs.last, last.upperBound == index {
        runs[runs.count - 1] = last.lowerBound..<(index + 1)
      } else {
        runs.append(index..<(index + 1))
      }
    }
    return runs
  }
}

#if DEBUG
  extension EngineFaultPlan {
    /// Whether `DirtyTracker.scanFaultily` has something to do.
    fileprivate var breakScans: Bool {
      has(.copyBeforeProtect) || has(.ignoreLostRegistration) || has(.forgetDropped)
    }
  }

  extension DirtyTracker {
    /// `scanTracked`, with a fault.
    private func scanFaultily<Failure: Error>(
      _ range: PageRange, isFrozen: Bool, previous: inout PopulatedSet.Cursor,
      _ body: (PageRange, Fate) throws(Failure) -> Void
    ) throws(ScanFailure<Failure>) {
      var cursor = previous
      var position = range.start
      let protectsLate = faults.has(.copyBeforeProtect)
      if protectsLate {
        // What the round before copied, at last.
        do throws(KernelError) { try protectUnseen(range) } catch { throw .kernel(error) }
      }
      try scanner.scan(range, filter: .populated, protect: !isFrozen && !protectsLate) {
        (region) throws(Failure) in
        if faults.has(.forgetDropped) {
          let gap = PageRange(start: position, end: region.range.start)
          try cursor.split(gap) { (piece, isHeld) throws(Failure) in
            if isHeld { try body(piece, .fromParent) }
          }
          position = region.range.end
        }
        let isTracked =
          region.categories.contains(.writeProtectAllowed) || faults.has(.ignoreLostRegistration)
        let isWritten = region.categories.isSuperset(of: [.written, .writeProtectAllowed])
        if isWritten || !isTracked {
          try store(region, body)
        } else if Self.holdsData(region) {
          try cursor.split(region.range) { (piece, isHeld) throws(Failure) in
            try body(piece, isHeld ? .fromParent : .store)
          }
        }
      }
      previous = cursor
    }

    /// Makes what is in `range` look unchanged.
    private func protectUnseen(_ range: PageRange) throws(KernelError) {
      do throws(ScanFailure<Never>) {
        try scanner.scan(range, filter: .populated, protect: true) { _ in }
      } catch {
        if case .kernel(let error) = error { throw error }
      }
    }
  }
#endif
