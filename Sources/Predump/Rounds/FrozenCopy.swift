internal import Images
internal import Kernel

/// What the frozen round found, in order, with the bytes copied to memory while the process stood
/// still. Compressing and writing come after the thaw.
struct FrozenCopy: ~Copyable {
  /// A run of pages and what the round does with it.
  struct Item: Sendable {
    /// Addresses, or byte offsets in a shared object.
    var range: PageRange
    /// The VMA (index in the round's list) that it belongs to.
    var vma: Int
    /// Present flags, or `.parent`.
    var flags: PagemapFlags
    /// Where the bytes are in the spool; nil if there was no room, or none are needed.
    var spoolOffset: Int?
  }

  /// Pages that are read at once: they stay in the processor's cache while they are copied.
  private static let piecePages: UInt64 = 256

  private(set) var items: [Item] = []
  private(set) var counters = CopyCounters()
  /// Whether some bytes did not fit: they must be written while the process stands still.
  private(set) var hasOverflow = false
  private let spool: AnonymousMemory
  private var used = 0
  /// What `readPlanned` is to copy.
  private var planned: [FrozenReads.Piece] = []
  /// Items from here on may still grow.
  private var section = 0

  /// - Parameter expectedBytes: made ready now, so that the copy meets no page faults.
  init(capacityBytes: UInt64, expectedBytes: UInt64) throws(KernelError) {
    spool = try AnonymousMemory(byteCount: Int(clamping: capacityBytes))
    spool.populate(first: Int(clamping: expectedBytes))
    items.reserveCapacity(64 * 1024)
    planned.reserveCapacity(64 * 1024)
  }

  /// What follows belongs to another process, or to shared memory objects.
  ///
  /// - Returns: index of the next item.
  mutating func beginSection() -> Int {
    section = items.count
    return section
  }

  /// Forgets the section that was begun last.
  mutating func dropSection() {
    items.removeSubrange(section...)
    planned.removeAll(keepingCapacity: true)
  }

  /// Notes a run that the parent holds.
  mutating func takeFromParent(_ range: PageRange, vma: Int) {
    if items.count > section, let last = items.last, last.flags == .parent,
      last.range.end == range.start, last.vma == vma
    {
      items[items.count - 1].range.end = range.end
    } else {
      items.append(Item(range: range, vma: vma, flags: .parent, spoolOffset: nil))
    }
  }

  /// Notes a run that `readPlanned` is to copy, as far as there is room.
  mutating func plan(_ range: PageRange, vma: Int, flags: PagemapFlags) {
    var position = range.start
    while position < range.end {
      let room = (spool.byteCount - used) / Int(pageBytes)
      if room == 0 { return addOverflow(PageRange(start: position, end: range.end), vma, flags) }
      let wanted = (range.end - position) / pageBytes
      let piece = PageRange(
        start: position, pageCount: min(wanted, UInt64(room), Self.piecePages))
      append(piece, vma: vma, flags: flags)
      planned.append(FrozenReads.Piece(range: piece, offset: used))
      used += Int(piece.byteCount)
      position = piece.end
    }
  }

  /// Copies what was planned in the section that was begun last.
  ///
  /// - Returns: pages that cannot be read, ascending; they are left out.
  mutating func readPlanned(from source: SharedProcessMemory, _ crew: ThreadCrew)
    throws(CopyFailure) -> [PageRange]
  {
    let began = MonotonicClock.now
    let reads = FrozenReads(planned, from: source, into: spool.bytes(at: 0, count: used))
    crew.run(isSmall: reads.isSmall) { reads.work() }
    let missing = try reads.finish().sorted { $0.start < $1.start }
    counters.pages += planned.reduce(0) { $0 + $1.range.pageCount }
    counters.pages -= missing.reduce(0) { $0 + $1.pageCount }
    counters.reads += UInt64(planned.count)
    counters.nanoseconds += MonotonicClock.now - began
    planned.removeAll(keepingCapacity: true)
    if !missing.isEmpty { leaveOut(missing) }
    return missing
  }

  /// Takes pages out of the items of the last section.
  private mutating func leaveOut(_ missing: [PageRange]) {
    var holes = PopulatedSet()
    for range in missing { holes.append(range) }
    var cursor = PopulatedSet.Cursor(holes)
    let found = Array(items[section...])
    items.removeSubrange(section...)
    for item in found {
      guard let offset = item.spoolOffset else {
        items.append(item)
        continue
      }
      cursor.split(item.range) { piece, isMissing in
        if isMissing { return }
        var rest = item
        rest.range = piece
        rest.spoolOffset = offset + Int(piece.start - item.range.start)
        items.append(rest)
      }
    }
  }

  private mutating func addOverflow(_ range: PageRange, _ vma: Int, _ flags: PagemapFlags) {
    hasOverflow = true
    items.append(Item(range: range, vma: vma, flags: flags, spoolOffset: nil))
  }

  /// Copies a run as far as there is room. Pages that cannot be read are left out.
  mutating func store(
    _ range: PageRange, vma: Int, flags: PagemapFlags,
    read: (UInt64, UnsafeMutableRawBufferPointer) throws(KernelError) -> ProcessMemory.ReadResult
  ) throws(CopyFailure) {
    var position = range.start
    while position < range.end {
      let room = (spool.byteCount - used) / Int(pageBytes)
      let wanted = Int((range.end - position) / pageBytes)
      if room == 0 { return addOverflow(PageRange(start: position, end: range.end), vma, flags) }
      let pages = min(room, wanted, Int(Self.piecePages))
      let began = MonotonicClock.now
      let result: ProcessMemory.ReadResult
      do throws(KernelError) {
        result = try read(position, spool.bytes(at: used, count: pages * Int(pageBytes)))
      } catch { throw .kernel(error) }
      guard case .pages(let count) = result else { throw .addressSpaceGone }
      if count == 0 {
        position += pageBytes
        continue
      }
      let piece = PageRange(start: position, pageCount: UInt64(count))
      append(piece, vma: vma, flags: flags)
      counters.add(pages: UInt64(count), nanoseconds: MonotonicClock.now - began)
      used += count * Int(pageBytes)
      position = piece.end
    }
  }

  /// Looks again at all of the last section that is to come from the parent, and stores what the
  /// chain does not hold so.
  ///
  /// - Returns: pages that were found; nil without a verifier.
  mutating func verify(
    _ verifier: inout FinalVerifier?, _ vmas: [VMARecord], memory: borrowing ProcessMemory
  ) throws(RoundFailure) -> UInt64? {
    guard verifier != nil else { return nil }
    let found = Array(items[section...])
    items.removeSubrange(section...)
    for item in found {
      guard item.flags == .parent else {
        items.append(item)
        continue
      }
      let flags = RoundPlan.presentFlags(of: vmas[item.vma])
      try verifier?.split(item.range, memory: memory) { (piece, isHeld) throws(CopyFailure) in
        if isHeld {
          takeFromParent(piece, vma: item.vma)
        } else {
          try store(piece, vma: item.vma, flags: flags) {
            (address, buffer) throws(KernelError) in
            try memory.readPages(at: address, into: buffer)
          }
        }
      }
    }
    return verifier?.pagesFound
  }

  /// Copies bytes that were put away, for the page at `address` of `item` on.
  func fetch(_ item: Item, at address: UInt64, into buffer: UnsafeMutableRawBufferPointer) -> Int {
    guard let offset = item.spoolOffset else { return 0 }
    let start = offset + Int(address - item.range.start)
    buffer.copyMemory(from: UnsafeRawBufferPointer(spool.bytes(at: start, count: buffer.count)))
    return buffer.count / Int(pageBytes)
  }

  private mutating func append(_ piece: PageRange, vma: Int, flags: PagemapFlags) {
    if items.count > section, let last = items.last, last.vma == vma, last.flags == flags,
      last.range.end == piece.start, let offset = last.spoolOffset,
      offset + Int(last.range.byteCount) == used
    {
      items[items.count - 1].range.end = piece.end
    } else {
      items.append(Item(range: piece, vma: vma, flags: flags, spoolOffset: used))
    }
  }
}
