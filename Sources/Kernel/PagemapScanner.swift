internal import CLinux
internal import SystemPackage

/// `ioctl(PAGEMAP_SCAN)` on a process's page tables (Linux 6.7, admin-guide/mm/pagemap.rst).
package struct PagemapScanner: ~Copyable {
  /// Regions asked for in one call. 1,024 to 16,384 were measured to cost the same.
  package static let defaultVectorCount = 4096

  private let pagemap: File
  /// Storage of the kernel's answer. Owned here, so it lives as long as any call that fills it.
  private let vector: UnsafeMutablePointer<clinux_page_region>
  private let vectorCount: Int
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
    precondition(vectorCount > 0)
    self.pagemap = pagemap
    self.vectorCount = vectorCount
    self.faults = faults
    self.debt = debt
    vector = .allocate(capacity: vectorCount)
    // Written once now: a fault while the kernel copies its answer out would lose the answer, and
    // with it the pages that the call has protected already.
    vector.initialize(repeating: clinux_page_region(), count: vectorCount)
  }

  deinit { vector.deallocate() }

  /// Which pages a scan reports.
  package struct Filter: Sendable {
    /// Categories that must all be there.
    package var required: PageCategories = []
    /// Categories that must all be absent.
    package var forbidden: PageCategories = []
    /// Of these at least one must be there, if any is named.
    package var anyOf: PageCategories = []
    /// What is told of a page that passes. Regions end where one of these changes.
    package var told: PageCategories

    package init(
      required: PageCategories = [], forbidden: PageCategories = [], anyOf: PageCategories = [],
      told: PageCategories = .all
    ) {
      self.required = required
      self.forbidden = forbidden
      self.anyOf = anyOf
      self.told = told
    }

    /// What a dump needs to know. Not `.file`: asked for it, the kernel looks at every page's own
    /// structure, which more than doubles the time of a scan (measured).
    private static let essential: PageCategories = [
      .writeProtectAllowed, .written, .zero, .guardPage,
    ]

    /// Pages that hold something: in memory or swapped out.
    package static let populated = Filter(anyOf: [.present, .swapped], told: essential)
    /// Populated pages that were written since they were last protected.
    package static let dirty = Filter(
      required: .written, anyOf: [.present, .swapped], told: essential)
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
    var position = range.start
    while position < range.end {
      var walkEnd: UInt64 = 0
      var count: Int
      do throws(KernelError) {
        count = try fill(
          PageRange(start: position, end: range.end), filter: filter, protect: protect,
          walkEnd: &walkEnd)
      } catch { throw .kernel(error) }
      if protect, let debt { note(count, in: debt) }
      if faults.has(.losePartialVector), position > range.start, count < vectorCount { count = 0 }
      for index in 0..<count {
        let region = vector[index]
        merger.add(
          PageRegion(
            range: PageRange(start: region.start, end: region.end),
            categories: PageCategories(rawValue: region.categories)))
      }
      // The end is where the walk stopped, which may lie before the last region's end.
      if walkEnd <= position { break }
      if faults.has(.dropRestAtFullVector), count == vectorCount { break }
      position = walkEnd
      do throws(Failure) { try merger.flush(before: position, body) } catch { throw .body(error) }
    }
    do throws(Failure) { try merger.flush(before: .max, body) } catch { throw .body(error) }
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

  /// Enters the first `count` answers that tell of a write. Guard pages and the kernel's page of
  /// zeros count as written and hold nothing.
  private func note(_ count: Int, in debt: ScanDebt) {
    for region in UnsafeBufferPointer(start: vector, count: count) {
      let categories = PageCategories(rawValue: region.categories)
      if categories.contains(.written), categories.isDisjoint(with: .dataless) {
        debt.owe(PageRange(start: region.start, end: region.end))
      }
    }
  }

  private func fill(
    _ range: PageRange, filter: Filter, protect: Bool, walkEnd: inout UInt64
  ) throws(KernelError) -> Int {
    var argument = clinux_scan()
    argument.size = UInt64(MemoryLayout<clinux_scan>.size)
    argument.flags = protect ? 1 : 0  // PM_SCAN_WP_MATCHING
    argument.start = range.start
    argument.end = range.end
    argument.vec = UInt64(UInt(bitPattern: vector))
    argument.vec_len = UInt64(vectorCount)
    argument.category_mask = filter.required.union(filter.forbidden).rawValue
    argument.category_inverted = filter.forbidden.rawValue
    argument.category_anyof_mask = filter.anyOf.rawValue
    argument.return_mask = filter.told.rawValue
    let number = pagemap.descriptor.number
    let count = try invoke(
      "ioctl(PAGEMAP_SCAN)",
      on: "\(pagemap.path) \(hexAddress(range.start))-\(hexAddress(range.end))"
    ) { clinux_pagemap_scan(number, &argument) }
    walkEnd = argument.walk_end
    return count
  }
}

/// A scan that failed, or whose consumer did.
package enum ScanFailure<Failure: Error>: Error {
  case kernel(KernelError)
  case body(Failure)
}
