/// How pages are stored.
public enum PageCompression: Sendable, Equatable {
  /// As they are. Any CRIU reads that.
  case none
  /// LZ4 in blocks of 1...1024 pages; all-zero blocks take no bytes. CRIU 4.3 or later reads that.
  case lz4(pagesPerBlock: Int, acceleration: Int)

  /// Pages in a block when nothing else is asked for: 64 KiB, the longest block for which LZ4 uses its
  /// table of 16-bit positions. It packs those a sixth faster than CRIU's 256 KiB, and within a few
  /// percent as small: its matches reach back no further than 64 KiB in either.
  public static let defaultPagesPerBlock = 16
  /// LZ4's acceleration when nothing else is asked for. On what heaps hold, 2 is 15 % faster than
  /// LZ4's own 1 and more, and packs within 1 % as small; beyond that little is gained.
  public static let defaultAcceleration = 2
  /// Pages per digest where pages are stored as they are.
  static let plainPagesPerDigest = 64
  /// The numbers of pages that CRIU accepts in a block.
  public static let pagesPerBlockLimits = 1...1024

  /// What is done unless something else is asked for.
  public static let standard = PageCompression.lz4(
    pagesPerBlock: defaultPagesPerBlock, acceleration: defaultAcceleration)

  /// Pages per digest, and per compressed block where there are any. Out-of-range requests are
  /// moved to the nearest limit.
  package var blockPages: Int {
    switch self {
    case .none: Self.plainPagesPerDigest
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
