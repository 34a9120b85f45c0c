internal import Kernel
internal import SystemPackage

/// The target's transparent huge pages: a first write after a round splits them, and nobody but
/// khugepaged puts them together again.
struct HugePages: ~Copyable {
  private static let hugePageBytes: UInt64 = 2 << 20

  private let process: TargetProcess
  private let scanner: PagemapScanner
  /// What was huge before the dump, in whole huge pages.
  private let before: [PageRange]
  private let bytesBefore: UInt64

  /// Looks at the process before anything is done to it.
  ///
  /// - Parameters:
  ///   - remembersPlaces: whether `restore` is to follow.
  ///   - known: memory in huge pages (bytes), if somebody has just looked.
  init(of pid: Int32, remembersPlaces: Bool, known: UInt64? = nil) throws(KernelError) {
    let process = try TargetProcess(pid: pid)
    let scanner = PagemapScanner(pagemap: try process.open("pagemap"))
    let bytes: UInt64
    if let known { bytes = known } else { bytes = try process.hugePageBytes() }
    before = remembersPlaces && bytes > 0 ? try Self.places(of: process, scanner) : []
    bytesBefore = bytes
    self.scanner = scanner
    self.process = process
  }

  /// What became of them; nil if the process is gone. To be asked when tracking is over: memory that
  /// is tracked cannot be collapsed.
  ///
  /// - Parameters:
  ///   - budgetNanoseconds: time to spend on putting pages together again; nil for none at all.
  ///   - isCancelled: asked between two huge pages.
  consuming func finish(budgetNanoseconds: UInt64?, isCancelled: () -> Bool) -> HugePageReport? {
    var report = HugePageReport(bytesBefore: bytesBefore, bytesAfter: 0)
    do throws(KernelError) {
      if bytesBefore == 0 { return report }
      if let budgetNanoseconds {
        report.restoredBytes = try restore(
          until: MonotonicClock.now + budgetNanoseconds, isCancelled)
      }
      report.bytesAfter = try process.hugePageBytes()
    } catch { return nil }
    return report
  }

  /// Collapses what was huge before and is not now, where every small page is in memory: the process
  /// gets no byte more than it has.
  private borrowing func restore(until deadline: UInt64, _ isCancelled: () -> Bool)
    throws(KernelError) -> UInt64
  {
    var restored: UInt64 = 0
    let pages = Self.hugePageBytes / pageBytes
    for run in before {
      var start = run.start
      while start < run.end {
        if MonotonicClock.now > deadline || isCancelled() { return restored }
        let place = PageRange(start: start, pageCount: pages)
        start = place.end
        if try scanner.count(place, filter: .anonymousHuge) == pages { continue }
        guard try scanner.count(place, filter: .anonymousPresent) == pages else { continue }
        do throws(KernelError) { try process.collapse(place) } catch {
          // No memory in one piece, pages that are pinned, a mapping that changed: not this one.
          if [.noSuchProcess, .notPermitted].contains(error.errno) { throw error }
          continue
        }
        restored += place.byteCount
      }
    }
    return restored
  }

  private static func places(
    of process: borrowing TargetProcess, _ scanner: borrowing PagemapScanner
  ) throws(KernelError) -> [PageRange] {
    let mask = hugePageBytes - 1
    var places: [PageRange] = []
    for entry in try process.maps()
    where !entry.isShared && entry.inode == 0 && entry.range.byteCount >= hugePageBytes {
      do throws(ScanFailure<Never>) {
        try scanner.scan(entry.range, filter: .anonymousHuge, protect: false) { region in
          let start = (region.range.start + mask) & ~mask
          let end = region.range.end & ~mask
          if start >= end { return }
          if let last = places.last, last.end == start {
            places[places.count - 1].end = end
          } else {
            places.append(PageRange(start: start, end: end))
          }
        }
      } catch {
        if case .kernel(let error) = error { throw error }
      }
    }
    return places
  }
}

/// What a dump did to the target's transparent huge pages.
public struct HugePageReport: Sendable {
  /// Anonymous memory in huge pages before the dump (bytes).
  public var bytesBefore: UInt64
  /// The same after it (bytes).
  public var bytesAfter: UInt64
  /// Memory that was put together again (bytes); nil if that was not asked for.
  public var restoredBytes: UInt64?
}
