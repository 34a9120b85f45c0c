internal import Kernel

/// What a chain's images say of themselves, without reading pages: for people to look at.
public struct ChainSummary: Sendable {
  /// One pagemap of a round.
  public struct Stream: Sendable {
    /// Whose pages it holds.
    public let stream: ImageStream
    /// Name of the pages file.
    public let pagesName: String
    /// Entries of the pagemap.
    public internal(set) var entryCount: UInt64 = 0
    /// Pages whose bytes are in this round.
    public internal(set) var pagesPresent: UInt64 = 0
    /// Of those, pages in blocks that take no bytes.
    public internal(set) var pagesZero: UInt64 = 0
    /// Pages that the round takes from its parent.
    public internal(set) var pagesFromParent: UInt64 = 0
    /// Pages that a lazy dump left out.
    public internal(set) var pagesLazy: UInt64 = 0
    /// Bytes of payload, padding included.
    public internal(set) var payloadBytes: UInt64 = 0
    /// Blocks that are stored compressed.
    public internal(set) var compressedBlocks: UInt64 = 0
    /// Blocks that are stored as they are.
    public internal(set) var rawBlocks: UInt64 = 0
    /// Blocks that are all zero.
    public internal(set) var zeroBlocks: UInt64 = 0

    /// Bytes of the present pages over bytes of payload; nil if there is no payload.
    public var ratio: Double? {
      payloadBytes == 0 ? nil : Double(pagesPresent) * Double(pageBytes) / Double(payloadBytes)
    }
  }

  /// One round.
  public struct Round: Sendable {
    /// Directory name.
    public let name: String
    /// Directory name of its parent; nil for the oldest.
    public let parentName: String?
    /// What our own record says; nil if the images are not memdump's.
    public let record: RoundRecord?
    /// Its pagemaps; the process's first.
    public let streams: [Stream]
  }

  /// What the session says; nil if there is no record of it, or if one round was asked for.
  public let session: SessionRecord?
  /// The rounds, oldest first.
  public let rounds: [Round]
  /// Leftovers of dumps that died.
  public let partialNames: [String]

  /// Reads the chain at `path`: a session's directory, or one round's.
  ///
  /// - Throws: the first thing that is wrong with links, pagemaps or records. `ChainVerifier` lists
  ///   all.
  public init(_ path: String) throws(ImageError) {
    let chain = try ImageChain(path)
    if let problem = chain.linkProblem { throw problem }
    session = chain.isSession ? try Self.session(in: chain.session) : nil
    partialNames = chain.partialNames
    var rounds: [Round] = []
    for (level, name) in chain.rounds.enumerated() {
      let parent = level + 1 < chain.rounds.count ? chain.rounds[level + 1] : nil
      let directory = try chain.open(name)
      var streams: [Stream] = []
      for stream in try chain.streams(of: name) {
        streams.append(try Stream(stream, in: directory))
      }
      rounds.append(
        Round(
          name: name, parentName: parent, record: try RoundRecordReader.find(in: directory),
          streams: streams))
    }
    self.rounds = rounds.reversed()
  }

  /// Calls `body` with every entry of a pagemap in the round directory `path`, in the file's order.
  ///
  /// - Throws: what is wrong with the pagemap, or what `body` throws.
  public static func forEachEntry(
    of stream: ImageStream, inRound path: String, _ body: (PagemapEntry) throws -> Void
  ) throws {
    let directory = try onFile(path) { () throws(KernelError) in
      try Directory.open(path, followSymlink: true)
    }
    var pagemap = try PagemapReader(stream.pagemapName, in: directory)
    while try pagemap.advance() { try body(pagemap.entry) }
  }

  private static func session(in directory: borrowing Directory) throws(ImageError)
    -> SessionRecord?
  {
    do throws(ImageError) {
      return try SessionRecord.read(from: directory)
    } catch {
      if error.kind == .missingFile { return nil }
      throw error
    }
  }
}

extension ChainSummary.Stream {
  /// Counts what a pagemap says.
  init(_ stream: ImageStream, in directory: borrowing Directory) throws(ImageError) {
    var pagemap = try PagemapReader(stream.pagemapName, in: directory)
    self.stream = stream
    pagesName = ImageFormat.pagesName(pagemap.pagesID)
    while try pagemap.advance() { count(pagemap.entry) }
    payloadBytes = pagemap.payloadEnd
  }

  private mutating func count(_ entry: PagemapEntry) {
    entryCount += 1
    let pages = entry.range.pageCount
    if entry.flags.contains(.parent) {
      pagesFromParent &+= pages
    } else if entry.flags.contains(.present) {
      pagesPresent &+= pages
    } else {
      pagesLazy &+= pages
    }
    for (index, size) in entry.blockSizes.enumerated() {
      let decoded = entry.decodedBytes(ofBlock: index)
      if size == 0 {
        zeroBlocks += 1
        pagesZero += UInt64(decoded) / pageBytes
      } else if Int(size) == decoded {
        rawBlocks += 1
      } else {
        compressedBlocks += 1
      }
    }
  }
}
