/// What PAGEMAP_SCAN says of a page (PAGE_IS_* of linux/fs.h).
package struct PageCategories: OptionSet, Sendable {
  package let rawValue: UInt64
  package init(rawValue: UInt64) { self.rawValue = rawValue }

  /// The page's VMA is registered for write-protect tracking.
  package static let writeProtectAllowed = PageCategories(rawValue: 1 << 0)
  /// Written since it was last protected. Of VMAs that are not registered, kernels before 7.3 report
  /// it for every page, later ones for none: it means something beside `writeProtectAllowed` alone.
  package static let written = PageCategories(rawValue: 1 << 1)
  /// Backed by a file or shared memory, not by anonymous memory.
  package static let file = PageCategories(rawValue: 1 << 2)
  /// In memory.
  package static let present = PageCategories(rawValue: 1 << 3)
  /// Swapped out, or a marker in the page table that looks so.
  package static let swapped = PageCategories(rawValue: 1 << 4)
  /// The kernel's shared page of zeros.
  package static let zero = PageCategories(rawValue: 1 << 5)
  /// Mapped by a huge page-table entry.
  package static let huge = PageCategories(rawValue: 1 << 6)
  /// Written since soft-dirty marks were last taken away; never on kernels without them.
  package static let softDirty = PageCategories(rawValue: 1 << 7)
  /// A guard page (MADV_GUARD_INSTALL): reading it fails. Linux 6.15 and newer; those before show it
  /// as a swapped page.
  package static let guardPage = PageCategories(rawValue: 1 << 8)

  /// Every category above but soft-dirty, which no dump needs: it would cut runs of pages into pieces.
  package static let all: PageCategories = [
    .writeProtectAllowed, .written, .file, .present, .swapped, .zero, .huge, .guardPage,
  ]
  /// Pages that hold something: in memory or swapped out.
  package static let populated = PageCategories(rawValue: 1 << 3 | 1 << 4)
  /// Pages that are populated and hold no data: guard pages cannot be read; the kernel's zero page
  /// is what a hole reads as, and CRIU leaves it out too.
  package static let dataless = PageCategories(rawValue: 1 << 5 | 1 << 8)
}

/// Pages in a row that have the same categories.
package struct PageRegion: Sendable, Equatable {
  package var range: PageRange
  package var categories: PageCategories
}
