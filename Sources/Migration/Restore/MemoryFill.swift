internal import Images
internal import Kernel
internal import Synchronization

/// The missing pages of a process, for several threads that give them.
final class SharedMissingPages: Sendable {
  let pages: MissingPages
  init(_ pages: consuming MissingPages) { self.pages = pages }
}

/// Fills missing pages of one process from a chain, with several threads.
struct MemoryFill: Sendable {
  /// How much a thread takes on at once, and reads at once.
  private static let portionBytes: UInt64 = 8 << 20
  private static let batchBytes = 256 << 10

  private let directory: String
  private let pid: Int32
  /// What a thread takes on: ranges next to each other.
  private let portions: [[PageRange]]

  /// Fills these pages, which ascend, of process `pid` of the chain in `directory`.
  init(_ directory: String, pid: Int32, _ ranges: [PageRange]) {
    self.directory = directory
    self.pid = pid
    var portions: [[PageRange]] = [[]]
    var room = Self.portionBytes
    for range in ranges {
      var rest = range
      while !rest.isEmpty {
        let end = min(rest.end, rest.start + room)
        portions[portions.count - 1].append(PageRange(start: rest.start, end: end))
        room -= end - rest.start
        rest = PageRange(start: end, end: rest.end)
        if room == 0 {
          portions.append([])
          room = Self.portionBytes
        }
      }
    }
    self.portions = portions
  }

  /// Returns when all are filled.
  func run(_ missing: SharedMissingPages, workers: Int) throws {
    let failures = BlockingQueue<any Error>()
    let next = Counter()
    let crew = try ThreadCrew(name: "memdump-fill", count: workers) {}
    crew.run(isSmall: portions.count == 1) {
      do { try fill(missing, next) } catch { failures.put(error) }
    }
    failures.close()
    if let failure = failures.take() { throw failure }
  }

  private func fill(_ missing: SharedMissingPages, _ next: Counter) throws {
    var source = try PageSource(directory, pid: pid)
    // Freed here; lent out for the time of a call.
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Self.batchBytes, alignment: Int(pageBytes))
    defer { buffer.deallocate() }
    while let portion = next.take(below: portions.count) {
      for range in portions[portion] {
        var address = range.start
        while address < range.end {
          let count = Int(min(range.end - address, UInt64(buffer.count)))
          let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
          guard try source.read(from: address, into: part) * Int(pageBytes) == count else {
            throw MigrationError.peer(
              "the rounds in \(directory) changed while process \(pid) was restored from them")
          }
          try missing.pages.give(UnsafeRawBufferPointer(part), at: address)
          address += UInt64(count)
        }
      }
    }
  }

  /// Hands out numbers, each once.
  private final class Counter: Sendable {
    private let value = Atomic<Int>(0)

    func take(below limit: Int) -> Int? {
      let number = value.wrappingAdd(1, ordering: .relaxed).oldValue
      return number < limit ? number : nil
    }
  }
}
