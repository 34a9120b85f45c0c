internal import Kernel

/// Where registration may begin and end.
///
/// Only whole VMAs are listed for it, but the process maps, grows and moves on between the list and
/// the call. A call that ends in the midst of what is one VMA by then splits it, and the process's
/// own mremap of it fails with EFAULT, which it never did before (seen with python's mmap.resize).
enum MappingEdges {
  /// `range` with the whole of the VMAs that reach beyond its ends.
  static func widened(_ range: PageRange, _ maps: [MapsEntry]) -> PageRange {
    var wide = range
    for entry in maps where isAnonymous(entry) && !entry.range.intersection(range).isEmpty {
      wide.start = min(wide.start, entry.range.start)
      wide.end = max(wide.end, entry.range.end)
    }
    return wide
  }

  /// VMAs that continue one of `ranges`: perhaps the other half of what registration has split.
  static func continuations(of ranges: [PageRange], _ maps: [MapsEntry]) -> [PageRange] {
    let (starts, ends) = (Set(ranges.map(\.start)), Set(ranges.map(\.end)))
    var found: [PageRange] = []
    for (entry, next) in zip(maps, maps.dropFirst()) {
      guard isAnonymous(entry), isAnonymous(next), entry.protection == next.protection,
        entry.range.end == next.range.start
      else { continue }
      if ends.contains(entry.range.end) { found.append(next.range) }
      if starts.contains(next.range.start) { found.append(entry.range) }
    }
    return found
  }

  /// VMAs of which a part lies in one of `ranges`.
  static func touched(by ranges: [PageRange], _ maps: [MapsEntry]) -> [PageRange] {
    var ends: [UInt64] = []
    let sorted = ranges.sorted { $0.start < $1.start }
    // The largest end so far: of those that begin before a VMA's end, whether one reaches into it.
    for range in sorted { ends.append(max(range.end, ends.last ?? 0)) }
    var next = 0
    return maps.map(\.range).filter { vma in
      while next < sorted.count, sorted[next].start < vma.end { next += 1 }
      return next > 0 && ends[next - 1] > vma.start
    }
  }

  private static func isAnonymous(_ entry: MapsEntry) -> Bool {
    entry.inode == 0 && !entry.isShared && (entry.path.isEmpty || entry.path.hasPrefix("[anon:"))
  }
}
