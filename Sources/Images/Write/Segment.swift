internal import Kernel

/// A run of pages of one kind. Those of the parent have no bytes.
package struct Segment: Sendable, Equatable {
  /// First byte.
  package var start: UInt64
  /// Length in pages.
  package var pageCount: UInt64
  /// Where the pages are.
  package var flags: PagemapFlags

  /// Byte after the last one; nil if that is not an address.
  var end: UInt64? {
    let (bytes, tooLong) = pageCount.multipliedReportingOverflow(by: pageBytes)
    let (end, tooFar) = start.addingReportingOverflow(bytes)
    return tooLong || tooFar ? nil : end
  }
}
