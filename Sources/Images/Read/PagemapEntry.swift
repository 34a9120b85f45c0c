public import Kernel

/// A run of pages of a pagemap, and where its bytes are in the pages file.
public struct PagemapEntry: Sendable, Equatable {
  /// The pages: addresses of the process, or offsets in the shared object.
  public var range = PageRange(start: 0, end: 0)
  /// Where the bytes are. Legacy fields are translated.
  public var flags: PagemapFlags = []
  /// Stored bytes of each block; empty if the pages are stored as they are.
  public var blockSizes: [UInt32] = []
  /// Pages in a block; 0 if the pages are stored as they are.
  public var pagesPerBlock = 0
  /// Where the payload starts in the pages file (bytes).
  public var payloadOffset: UInt64 = 0
  /// Length of the payload (bytes).
  public var payloadBytes: UInt64 = 0
  /// Where the padding before the payload starts (bytes); `payloadOffset` if there is none.
  public var paddingOffset: UInt64 = 0
  /// Where the entry's record starts in the pagemap (bytes).
  public var recordOffset: UInt64 = 0

  /// Whether the pages are cut into blocks.
  public var hasBlocks: Bool { pagesPerBlock > 0 }
}
