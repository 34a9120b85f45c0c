/// What a pagemap entry says of its pages (CRIU's PE_*).
public struct PagemapFlags: OptionSet, Sendable, Hashable {
  /// The `flags` field of CRIU's `pagemap_entry`.
  public let rawValue: UInt32

  /// Takes the bits as they are in the image.
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// The pages are in the parent directory.
  public static let parent = PagemapFlags(rawValue: 1)
  /// A restore may fetch the pages later.
  public static let lazy = PagemapFlags(rawValue: 2)
  /// The pages are in this directory's pages file.
  public static let present = PagemapFlags(rawValue: 4)
  /// In this directory's pages file, and may be fetched later.
  public static let presentLazily: PagemapFlags = [.present, .lazy]
  /// The payload starts at the next multiple of 4096 in the pages file; the gap is zero (CRIU 4.3).
  public static let payloadAligned = PagemapFlags(rawValue: 8)

  /// Every bit that CRIU 4.3 defines.
  static let known: PagemapFlags = [.parent, .lazy, .present, .payloadAligned]
}
