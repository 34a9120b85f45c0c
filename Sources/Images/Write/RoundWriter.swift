package import Kernel

/// Writes a round's directory: CRIU's images and our own record.
///
/// The files grow in `NAME.partial`, which becomes `NAME` only when everything is written; dropped
/// without `commit`, the writer removes it. After an error the writer can only be dropped.
package struct RoundWriter: ~Copyable {
  private let compression: PageCompression
  private let sync: Bool
  private let parentVersion: UInt32
  private let partial: PartialDirectory
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
    var parent: ParentRound?
    if let parentName { parent = try ParentRound(parentName, in: session, pid: pid) }
    let partial = try PartialDirectory(name, in: session)
    if let parentName {
      try onFile(partial.directory.join(ImageFormat.parentName)) { () throws(KernelError) in
        try partial.directory.createSymlink(ImageFormat.parentName, to: "../\(parentName)")
      }
    }
    let record = try RoundRecordWriter(
      in: partial.directory, pid: pid, compression: compression,
      parent: parent.map { ($0.name, $0.record) })
    let stream = try PagemapStream(
      .process(pid: pid), in: partial.directory, pagesID: 1, compression: compression, sync: sync)
    self.partial = partial
    self.record = record
    self.stream = stream
    streams = [.process(pid: pid)]
    self.compression = compression
    self.sync = sync
    parentVersion = parent?.imageVersion ?? ImageFormat.plainVersion
  }

  /// What was appended so far.
  package var totals: RoundTotals { earlier + stream.totals }

  /// Switches to a shared memory object's own pagemap, whose addresses are byte offsets in the
  /// object.
  ///
  /// - Parameter id: the object's number in `pagemap-shmem-ID.img`; not 0.
  package mutating func beginSharedObject(id: UInt64) throws(ImageError) {
    guard id != 0 else {
      throw ImageError(.misuse, file: partial.directory.path, "a shared object's id must not be 0")
    }
    try begin(.sharedObject(id: id))
  }

  /// Switches to another pagemap. Every stream comes once.
  package mutating func begin(_ next: ImageStream) throws(ImageError) {
    guard streams.insert(next).inserted else {
      throw ImageError(
        .misuse, file: partial.directory.join(next.pagemapName), "this stream was written already")
    }
    try finishStream()
    streamCount += 1
    stream = try PagemapStream(
      next, in: partial.directory, pagesID: streamCount, compression: compression, sync: sync)
  }

  /// Appends an encoded chunk. Addresses ascend within a stream, across chunks too.
  package mutating func append(_ chunk: Chunk) throws(ImageError) {
    guard chunk.compression == compression else {
      throw ImageError(
        .misuse, file: partial.directory.path, "the chunk is for another kind of compression")
    }
    try stream.append(chunk)
    try record.append(chunk.blocks, of: stream.stream)
  }

  /// Writes the remaining images and our own record, syncs if that was asked for, and gives the
  /// directory its name. Only then does the round exist.
  ///
  /// - Throws: what could not be written; the partial directory is removed then. If only the very
  ///   last sync of the session's directory fails, the round exists but may not survive a power cut.
  /// - Parameter beforePublishing: runs when only the directory's name is missing.
  package consuming func commit(
    _ description: RoundDescription, beforePublishing: () -> Void = {}
  ) throws(ImageError) -> RoundTotals {
    try finishStream()
    let totals = earlier
    let images = RoundImages(
      description: description, totals: totals, compression: compression,
      parentVersion: parentVersion)
    for member in description.members {
      files.append(try images.writeMM(of: member, in: partial.directory, sync: sync))
    }
    files.append(try images.writeInventory(in: partial.directory, sync: sync))
    files.append(try images.writeStatistics(in: partial.directory, sync: sync))
    try record.append(description)
    for file in files { try record.append(file) }
    try record.finish(totals, sync: sync)
    beforePublishing()
    let sync = sync
    try partial.publish(sync: sync)
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
