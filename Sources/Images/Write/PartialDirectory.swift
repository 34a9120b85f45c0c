internal import Kernel

/// The directory of a round that is not finished: `NAME.partial`. Removed with all its files unless
/// it was published.
struct PartialDirectory: ~Copyable {
  let name: String
  /// `NAME.partial`.
  let directory: Directory
  private let session: Directory
  private var isPublished = false

  /// Creates the directory (mode 0700) in `session`.
  init(_ name: String, in session: borrowing Directory) throws(ImageError) {
    let partial = name + ImageFormat.partialSuffix
    let handle = try onFile(session.path) { () throws(KernelError) in try session.reopen() }
    let directory = try onFile(session.join(partial)) { () throws(KernelError) in
      try session.createDirectory(partial)
    }
    self.name = name
    self.session = handle
    self.directory = directory
  }

  /// Makes `parent` -> `../parentName` in the directory; nothing if the round has no parent.
  func linkParent(_ parentName: String?) throws(ImageError) {
    guard let parentName else { return }
    try onFile(directory.join(ImageFormat.parentName)) { () throws(KernelError) in
      try directory.createSymlink(ImageFormat.parentName, to: "../\(parentName)")
    }
  }

  deinit {
    if isPublished { return }
    // Nobody can be told that this failed; a leftover is reported by the next reader.
    for file in (try? directory.names()) ?? [] { try? directory.removeFile(file) }
    try? session.removeDirectory(name + ImageFormat.partialSuffix)
  }

  /// Gives the directory its final name. With `sync`, every name in it and its own survive a power
  /// cut; the files' bytes are their writers' to sync.
  consuming func publish(sync: Bool) throws(ImageError) {
    do throws(KernelError) {
      if sync { try directory.sync() }
      try session.rename(name + ImageFormat.partialSuffix, to: name)
      isPublished = true
      if sync { try session.sync() }
    } catch {
      throw ImageError(error, file: session.join(name))
    }
  }
}
