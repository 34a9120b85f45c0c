public import Kernel

/// What a comparison of images with memory found.
public struct MemoryComparison: Sendable, Equatable {
  /// What differs.
  public enum Difference: String, Sendable, CaseIterable {
    /// The image's bytes are not the memory's.
    case content
    /// The image has a page that the process has not.
    case onlyInImage = "only-in-image"
    /// The process holds data that the image lacks.
    case onlyInMemory = "only-in-memory"
    /// A VMA lies elsewhere, has another protection, or is missing on one side.
    case layout
    /// A process is missing on one side.
    case process
  }

  /// Where something differs for the first time.
  public struct First: Sendable, Equatable {
    /// What differs.
    public var kind: Difference
    /// The first address (bytes), or byte offset in a shared object.
    public var address: UInt64
    /// In words.
    public var message: String
  }

  /// Pages of the image that were compared byte for byte.
  public internal(set) var pagesCompared: UInt64 = 0
  /// Pages that differ, of every kind but `layout`.
  public internal(set) var pagesDifferent: UInt64 = 0
  /// VMAs that were compared.
  public internal(set) var vmasCompared: UInt64 = 0
  /// Processes that were compared.
  public internal(set) var processesCompared: UInt64 = 0
  /// Processes that one side lacks.
  public internal(set) var processesDifferent: UInt64 = 0
  /// VMAs that differ.
  public internal(set) var vmasDifferent: UInt64 = 0
  /// The first difference of each kind, in the order of `Difference.allCases`.
  public internal(set) var first: [First] = []
  /// VMAs whose content no image holds and nobody may read: they were left out.
  public internal(set) var unreadableRanges: [PageRange] = []

  /// Whether nothing differs.
  public var isEqual: Bool {
    pagesDifferent == 0 && vmasDifferent == 0 && processesDifferent == 0
  }
}

extension MemoryComparison {
  /// Counts a difference, and keeps the first of its kind.
  mutating func note(_ kind: Difference, at address: UInt64, pages: UInt64, _ message: String) {
    switch kind {
    case .layout: vmasDifferent += 1
    case .process: processesDifferent += 1
    case .content, .onlyInImage, .onlyInMemory: pagesDifferent += pages
    }
    if first.contains(where: { $0.kind == kind }) { return }
    first.append(First(kind: kind, address: address, message: message))
    first.sort { left, right in
      let order = Difference.allCases
      return (order.firstIndex(of: left.kind) ?? 0) < (order.firstIndex(of: right.kind) ?? 0)
    }
  }

  /// Takes the findings of another comparison in.
  ///
  /// - Parameter prefix: what its messages are to begin with.
  mutating func merge(_ other: MemoryComparison, prefix: String = "") {
    pagesCompared += other.pagesCompared
    pagesDifferent += other.pagesDifferent
    vmasCompared += other.vmasCompared
    processesCompared += other.processesCompared
    processesDifferent += other.processesDifferent
    vmasDifferent += other.vmasDifferent
    for finding in other.first where !first.contains(where: { $0.kind == finding.kind }) {
      var finding = finding
      finding.message = prefix + finding.message
      first.append(finding)
    }
    for range in other.unreadableRanges where !unreadableRanges.contains(range) {
      unreadableRanges.append(range)
    }
  }
}
