/// How pages are stored.
public enum PageCompression: Sendable, Equatable {
  /// As they are. Any CRIU reads that.
  case none
  /// LZ4 in blocks of 1...1024 pages; all-zero blocks take no bytes. CRIU 4.3 or later reads that.
  case lz4(pagesPerBlock: Int, acceleration: Int)

  /// Pages in a block when nothing else is asked for: CRIU's 256 KiB.
  public static let defaultPagesPerBlock = 64
  /// The numbers of pages that CRIU accepts in a block.
  public static let pagesPerBlockLimits = 1...1024

  /// LZ4 as CRIU does it unless told otherwise.
  public static let standard = PageCompression.lz4(
    pagesPerBlock: defaultPagesPerBlock, acceleration: 1)

  /// Pages per digest, and per compressed block where there are any. Out-of-range requests are
  /// moved to the nearest limit.
  package var blockPages: Int {
    switch self {
    case .none: Self.defaultPagesPerBlock
    case .lz4(let pages, _):
      min(max(pages, Self.pagesPerBlockLimits.lowerBound), Self.pagesPerBlockLimits.upperBound)
    }
  }

  /// Whether entries have blocks.
  package var isCompressed: Bool { self != .none }

  /// LZ4's acceleration, within its limits; 0 if pages are stored as they are.
  var acceleration: Int {
    switch self {
    case .none: 0
    case .lz4(_, let acceleration): min(max(acceleration, 1), 65537)
    }
  }
}
