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
  /// VMAs that differ.
  public internal(set) var vmasDifferent: UInt64 = 0
  /// The first difference of each kind, in the order of `Difference.allCases`.
  public internal(set) var first: [First] = []
  /// VMAs whose content no image holds and nobody may read: they were left out.
  public internal(set) var unreadableRanges: [PageRange] = []

  /// Whether nothing differs.
  public var isEqual: Bool { pagesDifferent == 0 && vmasDifferent == 0 }
}

/// Compares a chain with the process that it was taken from.
public enum LiveComparison {
  /// Freezes process `pid` for the time of the comparison, and compares every byte of its memory
  /// with what the chain in `directory` composes to.
  ///
  /// - Throws: `PredumpError.images` if the chain cannot be read, `.unsuitableTarget` if the process
  ///   is not the one that was dumped, and what freezing throws.
  public static func run(directory: String, pid: Int32) throws(PredumpError) -> MemoryComparison {
    throw .interrupted
  }
}

/// Builds the dumped address space anew in a scratch process.
public enum ScratchRebuild {
  /// Makes a process whose VMAs have the addresses and protections of the dumped one, fills it from
  /// the chain in `directory`, reads it back, and compares. The scratch process never runs an
  /// instruction of the dumped program, and is gone afterwards.
  ///
  /// - Parameter pid: also compares with this live process, which is frozen meanwhile.
  /// - Throws: `PredumpError.images` if the chain cannot be read, `.kernel` if the scratch process
  ///   cannot be built.
  public static func run(directory: String, comparingWith pid: Int32?) throws(PredumpError)
    -> MemoryComparison
  {
    throw .interrupted
  }
}
