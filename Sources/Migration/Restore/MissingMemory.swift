internal import Images
internal import Kernel
internal import Synchronization
internal import SystemPackage

/// What one address space lacks, and where it wants it by now.
///
/// Pages are given under the lock that an event is taken under, and not while one waits to be taken
/// (the kernel says EAGAIN): so nothing is given to where it does not belong any more.
final class MissingMemory: Sendable {
  /// What a look at the address space brought.
  struct News {
    /// Pages that threads got that had waited for them.
    var faults: UInt64 = 0
    /// Children that have a copy of it, and lack the same.
    var children: [MissingMemory] = []
    /// Whether threads still wait, because the process changes its memory this moment.
    var isWaitedFor = false
  }

  /// How much is read at once, how much is given at once while an event may wait, and how much a
  /// thread gets that waits for one page.
  static let batchBytes = 256 << 10
  static let faultBytes = 64 << 10
  private static let givenBytes: UInt64 = 64 << 10
  private static let pauseNanoseconds: UInt64 = 20_000
  /// How much a thread takes on at once.
  private static let portionBytes: UInt64 = 8 << 20

  /// Whose pages it has, among the processes of the rounds.
  let pid: Int32
  private let missing: MissingPages
  private let mapping: ReadWriteLock<LazyMapping>
  private let portions: [[PageRange]]
  private let done: Mutex<[Bool]>
  /// Pages that threads wait for.
  private let wanted = Mutex<[UInt64]>([])

  /// Process `pid`, which lacks `pages`.
  init(_ pid: Int32, _ missing: consuming MissingPages, _ pages: RestoreDirectory.LazyPages) {
    self.pid = pid
    self.missing = missing
    mapping = ReadWriteLock(LazyMapping(pages.all))
    let portions = Self.portions(of: pages.rewritten) + Self.portions(of: pages.all)
    self.portions = portions
    done = Mutex(portions.map { _ in false })
  }

  /// A child of `parent`.
  private init(_ missing: consuming MissingPages, of parent: MissingMemory, _ mapping: LazyMapping)
  {
    pid = parent.pid
    self.missing = missing
    self.mapping = ReadWriteLock(mapping)
    portions = parent.portions
    // What is done was done before the fork: while it went on, nothing could be given.
    done = Mutex(parent.done.withLock { $0 })
  }

  private static func portions(of ranges: [PageRange]) -> [[PageRange]] {
    var portions: [[PageRange]] = []
    var room: UInt64 = 0
    for range in ranges {
      var rest = range
      while !rest.isEmpty {
        if room == 0 {
          portions.append([])
          room = portionBytes
        }
        let end = min(rest.end, rest.start + room)
        portions[portions.count - 1].append(PageRange(start: rest.start, end: end))
        room -= end - rest.start
        rest = PageRange(start: end, end: rest.end)
      }
    }
    return portions
  }

  /// Becomes readable when there is an event.
  var descriptor: CInt { missing.descriptor }

  /// Has `guardian` keep missing what is, until it has killed whom it guards.
  func keep(with guardian: ProcessGuardian) throws(KernelError) { try guardian.take(missing) }

  /// A page that it lacks; nil if there is none.
  var firstAddress: UInt64? { mapping.withReading { $0.firstAddress } }
  /// How many pages it lacks.
  var pageCount: UInt64 { mapping.withReading { $0.pageCount } }

  /// The portions that are to be filled, what is wanted soon first.
  var undone: [Int] { done.withLock { done in done.indices.filter { !done[$0] } } }

  // MARK: What happens to it

  /// Takes all that happened, and then gives pages to the threads that wait: the kernel tells of those
  /// first, and while it has more to tell nothing can be given. To be called by one thread.
  func attend(_ sources: inout PageSources, _ buffer: UnsafeMutableRawBufferPointer) throws -> News
  {
    var news = News()
    var wanted = self.wanted.withLock { $0 }
    while try takeEvent(&news, &wanted) {}
    try wanted.removeAll { address in
      let piece = mapping.withReading { $0.piece(at: address) }
      let isServed = try serve(address, piece, &sources, buffer)
      if isServed { news.faults += 1 }
      return isServed
    }
    news.isWaitedFor = !wanted.isEmpty
    self.wanted.withLock { $0 = wanted }
    return news
  }

  /// False if there is no event.
  private func takeEvent(_ news: inout News, _ wanted: inout [UInt64]) throws(KernelError) -> Bool {
    try mapping.withWriting { mapping throws(KernelError) in
      switch try missing.next() {
      case .fault(let address)?: wanted.append(address)
      case .removed(let range)?: mapping.remove(range)
      case .moved(let range, let address)?: mapping.move(range, to: address)
      case .forked(let child)?: news.children.append(MissingMemory(child, of: self, mapping))
      case nil: return false
      }
      return true
    }
  }

  /// Gives the page at `address` to the thread that waits for it, and some of those behind it. False
  /// if the process changes its memory this moment.
  private func serve(
    _ address: UInt64, _ piece: LazyMapping.Piece?, _ sources: inout PageSources,
    _ buffer: UnsafeMutableRawBufferPointer
  ) throws -> Bool {
    var count = 0
    if let piece {
      count = Int(min(piece.source.byteCount, UInt64(buffer.count)))
      try sources.read(
        pid, from: piece.source.start,
        into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]))
    }
    do throws(KernelError) {
      if count == 0 {
        try giveZeros(at: address)
      } else {
        try give(UnsafeRawBufferPointer(rebasing: buffer[..<count]), at: address)
      }
      // Where nothing is registered any more nobody else wakes it.
      try missing.wake(at: address)
    } catch {
      if error.errno == .resourceTemporarilyUnavailable { return false }
      if error.errno != .noSuchProcess { throw error }
    }
    return true
  }

  private func giveZeros(at address: UInt64) throws(KernelError) {
    do throws(KernelError) { try missing.giveZeros(at: address) } catch {
      if error.errno != .noSuchFileOrDirectory { throw error }
    }
  }

  // MARK: Filling it

  /// Gives a whole portion, but for what the process has and what it wants no more.
  func fill(
    _ portion: Int, _ sources: inout PageSources, _ buffer: UnsafeMutableRawBufferPointer
  ) throws {
    for range in portions[portion] {
      var start = range.start
      while start < range.end {
        let count = min(range.end - start, UInt64(buffer.count))
        let part = PageRange(start: start, end: start + count)
        let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(count)])
        try sources.read(pid, from: start, into: bytes)
        guard try give(part, UnsafeRawBufferPointer(bytes)) else { return }
        start += count
      }
    }
    done.withLock { $0[portion] = true }
  }

  /// Gives what `source` was, to where it is by now. False if the address space is gone.
  private func give(_ source: PageRange, _ bytes: UnsafeRawBufferPointer) throws(KernelError)
    -> Bool
  {
    var start = source.start
    while start < source.end {
      let part = PageRange(start: start, end: min(source.end, start + Self.givenBytes))
      do throws(KernelError) {
        try mapping.withReading { mapping throws(KernelError) in
          for piece in mapping.pieces(of: part) {
            let from = Int(piece.source.start - source.start)
            let count = Int(piece.source.byteCount)
            try give(
              UnsafeRawBufferPointer(rebasing: bytes[from..<from + count]), at: piece.address)
          }
        }
        start = part.end
      } catch {
        if error.errno == .noSuchProcess { return false }
        guard error.errno == .resourceTemporarilyUnavailable else { throw error }
        // Until its event is taken.
        MonotonicClock.pause(nanoseconds: Self.pauseNanoseconds)
      }
    }
    return true
  }

  /// Gives pages that may be in several VMAs by now, or in none.
  private func give(_ bytes: UnsafeRawBufferPointer, at address: UInt64) throws(KernelError) {
    do throws(KernelError) { return try missing.give(bytes, at: address) } catch {
      guard error.errno == .noSuchFileOrDirectory else { throw error }
    }
    let page = Int(pageBytes)
    for offset in stride(from: 0, to: bytes.count, by: page) {
      do throws(KernelError) {
        try missing.give(
          UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + page]),
          at: address + UInt64(offset))
      } catch {
        // Not registered: nothing is missing there (MADV_DONTFORK in a child).
        if error.errno != .noSuchFileOrDirectory { throw error }
      }
    }
  }
}

/// The images of several processes, for one thread.
struct PageSources {
  private final class Source {
    var pages: PageSource
    init(_ pages: consuming PageSource) { self.pages = pages }
  }

  private let directory: String
  private var sources: [Int32: Source] = [:]

  /// Those of the chain in `directory`.
  init(_ directory: String) { self.directory = directory }

  /// Reads whole pages of process `pid`, all of which the chain has.
  mutating func read(
    _ pid: Int32, from address: UInt64, into buffer: UnsafeMutableRawBufferPointer
  ) throws {
    let source: Source
    if let known = sources[pid] {
      source = known
    } else {
      source = Source(try PageSource(directory, pid: pid))
      sources[pid] = source
    }
    guard try source.pages.read(from: address, into: buffer) * Int(pageBytes) == buffer.count else {
      throw MigrationError.peer(
        "the rounds in \(directory) changed while process \(pid) was restored from them")
    }
  }
}
