package import Kernel

/// Prepares one directory from which CRIU can restore: links to CRIU's own images, and the memory in
/// a form that this CRIU reads. The originals are not touched.
package struct RestoreDirectory: ~Copyable {
  /// How the memory is given to CRIU.
  package enum Memory: Sendable, Equatable {
    /// CRIU's images refer to the rounds, and CRIU reads those.
    case rounds
    /// All pages plain in one file.
    case merged
  }

  /// The directory for `criu restore --images-dir`.
  package let directory: Directory
  private let session: Directory
  private let name: String
  /// Pages that were written anew.
  package private(set) var mergedPages: UInt64

  /// Whether CRIU needs LZ4 for the session at `path`.
  package static func isCompressed(_ path: String) throws(ImageError) -> Bool {
    let state = try onFile(path) { () throws(KernelError) in
      try Directory.open(path, followSymlink: true).directory(StateImages.directoryName)
    }
    return try Inventory.read(in: state).version >= ImageFormat.compressedVersion
  }

  /// The processes that have a pagemap among files of these names.
  package static func processes(in names: [String]) -> [Int32] {
    names.compactMap { name in
      if case .process(let pid)? = ImageStream(pagemapName: name) { pid } else { nil }
    }
  }

  /// Creates the directory `name` in the session at `path`. It is removed with this value.
  ///
  /// - Parameter workers: threads that decode.
  package static func prepare(_ path: String, name: String, memory: Memory, workers: Int) throws
    -> RestoreDirectory
  {
    let session = try Directory.open(path, followSymlink: true)
    let directory = try session.createDirectory(name)
    var prepared = RestoreDirectory(session, directory, name: name)
    try prepared.fill(memory, workers: workers)
    return prepared
  }

  private init(_ session: consuming Directory, _ directory: consuming Directory, name: String) {
    self.session = session
    self.directory = directory
    self.name = name
    mergedPages = 0
  }

  private mutating func fill(_ memory: Memory, workers: Int) throws {
    let state = try session.directory(StateImages.directoryName)
    let pids = Self.processes(in: try state.names())
    var own: Set<String> = []
    switch memory {
    case .rounds: break
    case .merged:
      own = [ImageFormat.parentName, ImageFormat.inventoryName]
      try Inventory.rewrite(from: state, to: directory, isCompressed: false)
      for pid in pids {
        let name = ImageFormat.pagemapName(pid: pid)
        own.insert(name)
        mergedPages += try MergedPages.write(
          state.path, pid: pid, pagesID: PagemapReader(name, in: state).pagesID, in: directory,
          workers: workers)
      }
    }
    for file in try state.names() where !own.contains(file) {
      let isParent = file == ImageFormat.parentName
      try directory.createSymlink(
        file,
        to: isParent ? state.readSymlink(file) : "../\(StateImages.directoryName)/\(file)")
    }
  }

  deinit {
    // Nobody can be told that this failed; what is left over is named restore-PID.
    for file in (try? directory.names()) ?? [] { try? directory.removeFile(file) }
    try? session.removeDirectory(name)
  }
}
