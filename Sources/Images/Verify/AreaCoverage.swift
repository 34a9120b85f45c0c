internal import Kernel

/// Answers whether ascending ranges lie in VMAs.
struct AreaCoverage {
  private let areas: [MappedArea]?
  private var next = 0

  /// Nil areas cover everything.
  init(_ areas: [MappedArea]?) { self.areas = areas }

  /// The first address of `range` that is in no VMA; nil if there is none. Ranges ascend from call
  /// to call; one may cross adjacent VMAs.
  mutating func firstOutside(_ range: PageRange) -> UInt64? {
    guard let areas else { return nil }
    var address = range.start
    while address < range.end {
      while next < areas.count && areas[next].range.end <= address { next += 1 }
      guard next < areas.count, areas[next].range.start <= address else { return address }
      address = areas[next].range.end
    }
    return nil
  }
}
