internal import Kernel
internal import SystemPackage

/// A file that is coming, and what came of it so far.
final class IncomingFile {
  private let path: String
  private let limit: UInt64
  private var writer: PayloadWriter

  /// Creates the file `name`, of at most `limit` bytes.
  init(_ name: String, in directory: borrowing Directory, limit: UInt64, sync: Bool)
    throws(ImageError)
  {
    path = directory.join(name)
    self.limit = limit
    writer = try PayloadWriter(name, in: directory, sync: sync)
  }

  /// Appends bytes.
  func append(_ bytes: UnsafeRawBufferPointer) throws(ImageError) {
    guard UInt64(bytes.count) <= limit - min(limit, writer.byteCount) else {
      throw ImageError(.stream, file: path, "the file is longer than \(limit) bytes")
    }
    try writer.append(bytes)
  }

  /// Ends the file, which must have become what the sender says.
  func finish(_ expected: FileDigest, sync: Bool) throws(ImageError) {
    let found = try writer.finish(sync: sync)
    guard found.byteCount == expected.byteCount, found.digest == expected.digest else {
      throw ImageError(.stream, file: path, "the file's bytes are not those that were sent")
    }
  }
}

/// A round that is coming. Its directory is removed unless it was published.
final class IncomingRound {
  let name: String
  /// The files that have begun and not ended, by slot.
  var files: [UInt8: IncomingFile] = [:]
  /// The round's directory.
  let directory: Directory
  private var fileCount = 0
  private var partial: PartialDirectory?

  /// Creates the round's directory in `session`.
  init(_ name: String, parent: String?, in session: borrowing Directory) throws(ImageError) {
    let partial = try PartialDirectory(name, in: session)
    try partial.linkParent(parent)
    let path = partial.directory.path
    directory = try onFile(path) { () throws(KernelError) in try partial.directory.reopen() }
    self.name = name
    self.partial = consume partial
  }

  /// Begins a file; its name is one that rounds have.
  func begin(_ name: String, slot: UInt8, limit: UInt64, sync: Bool, subject: String)
    throws(ImageError)
  {
    fileCount += 1
    guard Int(slot) < WireFormat.slotLimit, files[slot] == nil, fileCount <= WireFormat.fileLimit
    else { throw ImageError(.stream, file: subject, "too many files, or two in one slot") }
    do throws(ImageError) {
      files[slot] = try IncomingFile(name, in: directory, limit: limit, sync: sync)
    } catch {
      guard error.cause?.errno == .fileExists else { throw error }
      throw ImageError(.stream, file: error.file, "the same file came twice")
    }
  }

  /// Gives the directory its name.
  func publish(sync: Bool) throws(ImageError) {
    try partial.take()?.publish(sync: sync)
  }
}
