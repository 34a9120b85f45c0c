package import Kernel

/// Writes a round's directory: CRIU's images and our own record.
///
/// The files grow in `NAME.partial`, which becomes `NAME` only when everything is written; dropped
/// without `commit`, the writer removes it. After an error the writer can only be dropped.
package struct RoundWriter: ~Copyable {
  private let pid: Int32
  private let compression: PageCompression
  private let sync: Bool
  private let parentVersion: UInt32
  private let partial: PartialRound
  private var record: RoundRecordWriter
  private var stream: PagemapStream
  private var streamCount: UInt32 = 1
  /// What the streams before the current one counted.
  private var earlier = RoundTotals()
  private var files: [FileDigest] = []
  /// Every stream that was begun.
  private var streams: Set<ImageStream>

  /// Creates `name.partial` (mode 0700) in `session`, and in it `parent` -> `../parentName` if the
  /// round has a parent, which must be a committed round of the same session and pid.
  ///
  /// What is appended first belongs to process `pid`, the round's target.
  ///
  /// - Parameter sync: whether the round is to survive a power cut once `commit` returned.
  /// - Throws: the first file that cannot be created or, of the parent, read; nothing is left then.
  package init(
    in session: borrowing Directory, name: String, pid: Int32, parentName: String?,
    compression: PageCompression, sync: Bool
  ) throws(ImageError) {
    let handle = try onFile(session.path) { () throws(KernelError) in try session.reopen() }
    try self.init(
      in: SessionPlace(handle), name: name, pid: pid, parentName: parentName,
      compression: compression, sync: sync)
  }

  /// As above, wherever the session's rounds go.
  package init(
    in place: borrowing SessionPlace, name: String, pid: Int32, parentName: String?,
    compression: PageCompression, sync: Bool
  ) throws(ImageError) {
    var parent: ParentRound?
    if let parentName { parent = try place.parent(parentName, pid: pid) }
    try self.init(
      in: place, name: name, pid: pid, parent: parent, compression: compression, sync: sync)
  }

  /// As above, against a parent that need only be finished: a round is published after its parent.
  package init(
    in place: borrowing SessionPlace, name: String, pid: Int32, parent: ParentRound?,
    compression: PageCompression, sync: Bool
  ) throws(ImageError) {
    let partial = try place.begin(name, parentName: parent?.name)
    let record = try RoundRecordWriter(
      in: partial, pid: pid, compression: compression,
      parent: parent.map { ($0.name, $0.record) })
    let stream = try PagemapStream(
      .process(pid: pid), in: partial, pagesID: 1, compression: compression, sync: sync)
    self.partial = partial
    self.record = record
    self.stream = stream
    self.pid = pid
    streams = [.process(pid: pid)]
    self.compression = compression
    self.sync = sync
    parentVersion = parent?.imageVersion ?? ImageFormat.plainVersion
  }

  /// Whether nobody at the other end of a link is to be waited for.
  package var isLocal: Bool { partial.isLocal }

  /// What was appended so far.
  package var totals: RoundTotals { earlier + stream.totals }

  /// Switches to a shared memory object's own pagemap, whose addresses are byte offsets in the
  /// object.
  ///
  /// - Parameter id: the object's number in `pagemap-shmem-ID.img`; not 0.
  package mutating func beginSharedObject(id: UInt64) throws(ImageError) {
    guard id != 0 else {
      throw ImageError(.misuse, file: partial.path, "a shared object's id must not be 0")
    }
    try begin(.sharedObject(id: id))
  }

  /// Switches to another pagemap. Every stream comes once.
  package mutating func begin(_ next: ImageStream) throws(ImageError) {
    guard streams.insert(next).inserted else {
      throw ImageError(
        .misuse, file: "\(partial.path)/\(next.pagemapName)", "this stream was written already")
    }
    try finishStream()
    streamCount += 1
    stream = try PagemapStream(
      next, in: partial, pagesID: streamCount, compression: compression, sync: sync)
  }

  /// Appends an encoded chunk. Addresses ascend within a stream, across chunks too.
  package mutating func append(_ chunk: Chunk) throws(ImageError) {
    guard chunk.compression == compression else {
      throw ImageError(
        .misuse, file: partial.path, "the chunk is for another kind of compression")
    }
    try stream.append(chunk)
    try record.append(chunk.blocks, of: stream.stream)
  }

  /// Writes the remaining images and our own record.
  ///
  /// - Throws: what could not be written; the partial directory is removed then.
  package consuming func finish(_ description: RoundDescription) throws(ImageError)
    -> FinishedRound
  {
    try finishStream()
    let totals = earlier
    let images = RoundImages(
      description: description, totals: totals, compression: compression,
      parentVersion: parentVersion)
    for member in description.members {
      files.append(try images.writeMM(of: member, in: partial, sync: sync))
    }
    files.append(try images.writeInventory(in: partial, sync: sync))
    files.append(try images.writeStatistics(in: partial, sync: sync))
    try record.append(description)
    for file in files { try record.append(file) }
    let digest = try record.finish(totals, sync: sync).digest
    let round = ParentRound(partial.name, record: digest, imageVersion: images.imageVersion)
    return FinishedRound(partial, round, totals: totals, sync: sync)
  }

  /// As `finish` and `publish`: only then does the round exist.
  ///
  /// - Throws: what could not be written; the partial directory is removed then. If only the very
  ///   last sync of the session's directory fails, the round exists but may not survive a power cut.
  /// - Parameter beforePublishing: runs when only the directory's name is missing.
  package consuming func commit(
    _ description: RoundDescription, beforePublishing: () -> Void = {}
  ) throws(ImageError) -> RoundTotals {
    let round = try finish(description)
    let totals = round.totals
    try round.publish(beforePublishing)
    return totals
  }

  private mutating func finishStream() throws(ImageError) {
    files += try stream.finish(sync: sync)
    earlier = earlier + stream.totals
  }
}

extension RoundTotals {
  /// Both counts together.
  static func + (left: RoundTotals, right: RoundTotals) -> RoundTotals {
    var sum = left
    sum.pagesStored += right.pagesStored
    sum.pagesZero += right.pagesZero
    sum.pagesFromParent += right.pagesFromParent
    sum.payloadBytes += right.payloadBytes
    return sum
  }
}
