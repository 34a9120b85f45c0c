internal import Kernel

/// What a chain of images says of itself, for people to look at. Nothing is verified: that is
/// `ChainVerifier`'s work.
public struct ChainContents: ~Copyable {
  /// The version of memdump's own records.
  public static var recordVersion: UInt32 { ImageFormat.recordVersion }

  private let chain: ImageChain
  /// The session's record; nil for images that have none.
  public let session: SessionRecord?
  /// The rounds, oldest first.
  public let rounds: [RoundContents]
  /// What could not be read.
  public let problems: [ImageError]

  /// Reads the chain at `path`: a session's directory, or one round's.
  ///
  /// - Throws: `.missingFile` if there are no images.
  public init(_ path: String) throws(ImageError) {
    let chain = try ImageChain(path)
    var problems: [ImageError] = []
    if let problem = chain.linkProblem { problems.append(problem) }
    var session: SessionRecord?
    if chain.isSession {
      do throws(ImageError) { session = try SessionRecord.read(from: chain.session) } catch {
        if error.kind != .missingFile { problems.append(error) }
      }
    }
    var rounds: [RoundContents] = []
    for name in chain.rounds.reversed() {
      do throws(ImageError) {
        let directory = try chain.open(name)
        let streams = try chain.streams(of: name)
        rounds.append(
          RoundContents(name: name, in: directory, streams: streams, problems: &problems))
      } catch { problems.append(error) }
    }
    self.session = session
    self.rounds = rounds
    self.problems = problems
    self.chain = chain
  }

  /// Calls `body` with every entry of a stream's pagemap in a round, in the order of the file.
  ///
  /// - Throws: what is wrong with the pagemap; the entries before were handed out.
  public func forEachEntry(
    of stream: ImageStream, in round: String, _ body: (PagemapEntry) -> Void
  ) throws(ImageError) {
    var reader = try PagemapReader(stream.pagemapName, in: chain.open(round))
    while try reader.advance() { body(reader.entry) }
  }
}
