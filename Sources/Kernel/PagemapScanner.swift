internal import CLinux
internal import Glibc
internal import SystemPackage

/// `ioctl(PAGEMAP_SCAN)` on a process's page tables (Linux 6.7, admin-guide/mm/pagemap.rst).
package struct PagemapScanner: ~Copyable {
  /// Regions asked for in one call. 1,024 to 16,384 were measured to cost the same.
  package static let defaultVectorCount = 4096

  /// What is scanned.
  package let pagemap: Pagemap
  private let vector: ScanVector
  private let faults: EngineFaultPlan
  private let debt: ScanDebt?

  /// Scans through an open `/proc/PID/pagemap`.
  ///
  /// - Parameters:
  ///   - vectorCount: regions asked for in one call; at least 1.
  ///   - debt: told what protecting scans report as written.
  package init(
    pagemap: consuming File, vectorCount: Int = defaultVectorCount,
    faults: EngineFaultPlan = EngineFaultPlan(),
    debt: ScanDebt? = nil
  ) {
    self.init(
      Pagemap(pagemap), vector: ScanVector(count: vectorCount), faults: faults, debt: debt)
  }

  /// Scans what others scan too, perhaps at the same time, with a vector that nobody else uses
  /// meanwhile.
  package init(
    _ pagemap: Pagemap, vector: ScanVector, faults: EngineFaultPlan = EngineFaultPlan(),
    debt: ScanDebt? = nil
  ) {
    self.pagemap = pagemap
    self.vector = vector
    self.faults = faults
    self.debt = debt
  }

  /// Which pages a scan reports.
  package struct Filter: Sendable {
    /// Categories that must all be there.
    package var required: PageCategories = []
    /// Categories that must all be absent.
    package var forbidden: PageCategories = []
    /// Of these at least one must be there, if any is named.
    package var anyOf: PageCategories = []
    /// Or one of these must be absent.
    package var anyMissing: PageCategories = []
    /// What is told of a page that passes. Regions end where one of these changes.
    package var told: PageCategories

    package init(
      required: PageCategories = [], forbidden: PageCategories = [], anyOf: PageCategories = [],
      anyMissing: PageCategories = [], told: PageCategories = .all
    ) {
      self.required = required
      self.forbidden = forbidden
      self.anyOf = anyOf
      self.anyMissing = anyMissing
      self.told = told
    }

    /// What a dump needs to know. Not `.file`: asked for it, the kernel looks at every page's own
    /// structure, which more than doubles the time of a scan (measured).
    private static let essential: PageCategories = [
      .writeProtectAllowed, .written, .zero, .guardPage,
    ]

    /// Pages that hold something: in memory or swapped out.
    package static let populated = Filter(anyOf: [.present, .swapped], told: essential)
    /// All but tracked pages in memory that hold data and are as they were when they were protected:
    /// the contrary of what is mostly there, and reported at less than half the cost of `populated`.
    ///
    /// What is not reported is unchanged on every kernel: that holes count as written, and how
    /// unregistered memory does, differs from one to another, so neither is relied upon.
    package static let unsettled = Filter(
      anyOf: [.written, .zero], anyMissing: [.present, .writeProtectAllowed],
      told: [.writeProtectAllowed, .written, .present, .swapped, .zero, .guardPage])
    /// The one question that the kernel has a short way for: a third of the time of all others.
    package static let writtenAlone = Filter(required: .written, told: .written)
    /// Populated pages that were written since they were last protected.
    package static let dirty = Filter(
      required: .written, anyOf: [.present, .swapped], told: essential)
    /// Anonymous memory in huge pages.
    package static let anonymousHuge = Filter(
      required: [.huge, .present], forbidden: [.file, .zero], told: .present)
    /// Anonymous pages in memory that have bytes of their own.
    package static let anonymousPresent = Filter(
      required: .present, forbidden: [.file, .zero], told: .present)
    /// Pages with a soft-dirty mark.
    package static let softDirty = Filter(required: .softDirty, told: .present)
    /// Populated pages that are the process's own, not the file's.
    package static let ownPages = Filter(
      forbidden: .file, anyOf: [.present, .swapped], told: essential)
  }

  /// Reports the pages of `range` that pass `filter`, in ascending order, each page once.
  ///
  /// - Parameters:
  ///   - protect: write-protects what it reports, in the same step. Pages of VMAs that are not
  ///     registered are then passed over without a word (kernel: pagemap_scan_test_walk).
  ///   - body: called with regions that are final: where the kernel reports a region again after
  ///     a full vector, the reports are merged first, so a written page is never taken for clean.
  ///
  /// Of an address space that is gone it reports nothing, without an error: what a scan did not
  /// report counts only if `ProcessMemory.isAddressSpaceGone` is false after it.
  package func scan<Failure: Error>(
    _ range: PageRange, filter: Filter, protect: Bool, _ body: (PageRegion) throws(Failure) -> Void
  ) throws(ScanFailure<Failure>) {
    var merger = RegionMerger()
    _ = try scan(range, filter: filter, protect: protect, merger: &merger, body)
  }

  /// As above.
  ///
  /// - Parameter merger: keeps its storage from call to call.
  /// - Returns: up to where pages were looked at: the range's end, unless the address space is gone.
  package func scan<Failure: Error>(
    _ range: PageRange, filter: Filter, protect: Bool, merger: inout RegionMerger,
    _ body: (PageRegion) throws(Failure) -> Void
  ) throws(ScanFailure<Failure>) -> UInt64 {
    var position = range.start
    var reach = Self.firstReach
    while position < range.end {
      var walkEnd: UInt64 = 0
      var count: Int
      let end = Self.end(of: range, from: position, reach: &reach)
      do throws(KernelError) {
        count = try fill(
          PageRange(start: position, end: end), filter: filter, protect: protect,
          walkEnd: &walkEnd)
      } catch { throw .kernel(error) }
      if protect, let debt { note(count, in: debt) }
      if faults.has(.losePartialVector), position > range.start, count < vector.count { count = 0 }
      // The end is where the walk stopped, which may lie before the last region's end.
      if merger.isEmpty, count == 0 || vector.region(count - 1).range.end <= walkEnd {
        // Mostly there is nothing to merge.
        do throws(Failure) {
          for index in 0..<count { try body(vector.region(index)) }
        } catch { throw .body(error) }
      } else {
        for index in 0..<count { merger.add(vector.region(index)) }
      }
      if walkEnd <= position { break }
      if faults.has(.dropRestAtFullVector), count == vector.count {
        position = range.end
        break
      }
      position = walkEnd
      do throws(Failure) { try merger.flush(before: position, body) } catch { throw .body(error) }
    }
    do throws(Failure) { try merger.flush(before: .max, body) } catch { throw .body(error) }
    return position
  }

  /// What the first call of a scan looks at, at most (bytes), and each further one twice as much: what
  /// it finds is copied while the next one is under way, and a reservation of terabytes is soon over.
  private static let firstReach: UInt64 = 32 << 20

  /// Where the call that begins at `position` ends: no huge page is cut.
  private static func end(of range: PageRange, from position: UInt64, reach: inout UInt64) -> UInt64
  {
    let hugePageBytes: UInt64 = 2 << 20
    defer { reach = min(reach * 2, 1 << 50) }
    if range.end - position <= reach { return range.end }
    return (position + reach) / hugePageBytes * hugePageBytes
  }

  /// The number of pages of `range` that pass `filter`; nothing is protected.
  package func count(_ range: PageRange, filter: Filter) throws(KernelError) -> UInt64 {
    var pages: UInt64 = 0
    do throws(ScanFailure<Never>) {
      try scan(range, filter: filter, protect: false) { region in pages += region.range.pageCount }
    } catch {
      if case .kernel(let error) = error { throw error }
    }
    return pages
  }

  /// Whether the page at `address` lies in a VMA that is registered for tracking.
  package func isRegistered(_ address: UInt64) throws(KernelError) -> Bool {
    var walkEnd: UInt64 = 0
    let page = PageRange(start: address, pageCount: 1)
    let found = try fill(
      page, filter: Filter(required: .writeProtectAllowed), protect: false, walkEnd: &walkEnd)
    return found > 0
  }

  /// Whether all pages of `range`, which lies in one VMA, are tracked, populated and unchanged since
  /// they were protected. The kernel's page of zeros may be among them.
  ///
  /// Only on kernels where `ShortWay.isSafe`. It takes a third of the time of other scans, and less
  /// where something was written: it ends there.
  package func isStill(_ range: PageRange) throws(KernelError) -> Bool {
    // Kernels since 7.3 call nothing written that is not registered.
    guard try isRegistered(range.start) else { return false }
    var walkEnd: UInt64 = 0
    let found = try fill(
      range, filter: .writtenAlone, protect: false, limit: 1, walkEnd: &walkEnd)
    return found == 0 && walkEnd >= range.end
  }

  /// Enters the first `count` answers that tell of a write. Guard pages and the kernel's page of
  /// zeros count as written and hold nothing.
  private func note(_ count: Int, in debt: ScanDebt) {
    for index in 0..<count {
      let region = vector.region(index)
      if region.categories.contains(.written), region.categories.isDisjoint(with: .dataless) {
        debt.owe(region.range)
      }
    }
  }

  private func fill(
    _ range: PageRange, filter: Filter, protect: Bool, limit: Int = .max, walkEnd: inout UInt64
  ) throws(KernelError) -> Int {
    var argument = clinux_scan()
    argument.size = UInt64(MemoryLayout<clinux_scan>.size)
    argument.flags = protect ? 1 : 0  // PM_SCAN_WP_MATCHING
    argument.start = range.start
    argument.end = range.end
    argument.vec = UInt64(UInt(bitPattern: vector.base))
    argument.vec_len = UInt64(min(vector.count, limit))
    argument.category_mask = filter.required.union(filter.forbidden).rawValue
    argument.category_inverted = filter.forbidden.union(filter.anyMissing).rawValue
    argument.category_anyof_mask = filter.anyOf.union(filter.anyMissing).rawValue
    argument.return_mask = filter.told.intersection(pagemap.known).rawValue
    let file = pagemap
    let count = try invoke(
      "ioctl(PAGEMAP_SCAN)",
      on: "\(file.path) \(hexAddress(range.start))-\(hexAddress(range.end))"
    ) { clinux_pagemap_scan(file.number, &argument) }
    walkEnd = argument.walk_end
    return count
  }
}

/// An open `/proc/PID/pagemap`, for any thread.
package final class Pagemap: Sendable {
  private let file: File
  /// What the kernel knows of: it refuses a call that asks for more (EINVAL).
  fileprivate let known: PageCategories

  init(_ file: consuming File) {
    // An empty range is asked for.
    var argument = clinux_scan()
    argument.size = UInt64(MemoryLayout<clinux_scan>.size)
    argument.return_mask = PageCategories.all.rawValue
    let isRefused = clinux_pagemap_scan(file.descriptor.number, &argument) == -Int(EINVAL)
    known = isRefused ? PageCategories.all.subtracting(.guardPage) : .all
    self.file = file
  }

  fileprivate var path: String { file.path }
  fileprivate var number: CInt { file.descriptor.number }
}

/// Storage of the kernel's answers, for one thread at a time.
package final class ScanVector {
  // Owned here, so it lives as long as any call that fills it.
  fileprivate let base: UnsafeMutablePointer<clinux_page_region>
  fileprivate let count: Int

  /// - Parameter count: regions asked for in one call; at least 1.
  package init(count: Int = PagemapScanner.defaultVectorCount) {
    precondition(count > 0)
    self.count = count
    base = .allocate(capacity: count)
    // Written once now: a fault while the kernel copies its answer out would lose the answer, and
    // with it the pages that the call has protected already.
    base.initialize(repeating: clinux_page_region(), count: count)
  }

  deinit { base.deallocate() }

  fileprivate func region(_ index: Int) -> PageRegion {
    let region = base[index]
    return PageRegion(
      range: PageRange(start: region.start, end: region.end),
      categories: PageCategories(rawValue: region.categories))
  }
}

/// A scan that failed, or whose consumer did.
package enum ScanFailure<Failure: Error>: Error {
  case kernel(KernelError)
  case body(Failure)
}
