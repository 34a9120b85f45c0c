internal import Glibc
package import Kernel

/// One directory from which CRIU can restore: links to CRIU's own images, and the memory in a form
/// that this CRIU reads. The originals are not touched.
///
/// A CRIU may be started in it before there is anything to restore: it waits for the inventory, which
/// it reads first of all, and which is a pipe of ours until `fill` has done everything else. CRIU
/// fails if the pipe ends without a word, or if we, and with us the pipe, are gone when it comes.
package struct RestoreDirectory: ~Copyable {
  /// How the memory is given to CRIU.
  package enum Memory: Sendable, Equatable {
    /// CRIU's images refer to the rounds, and CRIU reads those.
    case rounds
    /// All pages plain in one file.
    case merged
    /// CRIU restores without the pages that can come later: `lazyPages` says which.
    case later
  }

  /// The directory for `criu restore --images-dir`.
  package let directory: Directory
  private let session: Directory
  private let path: String
  private let name: String
  private var inventory: OwnedPipe?
  /// Pages that were written anew.
  package private(set) var mergedPages: UInt64 = 0
  /// Of each process, the pages that CRIU restores without.
  package private(set) var lazyPages: [Int32: LazyPages] = [:]

  /// Pages of a process that come later.
  package struct LazyPages: Sendable {
    /// All of them, ascending; no range lies in two VMAs.
    package var all: [PageRange] = []
    /// Those that the process wrote after the first round, and so may want soon; ascending.
    package var rewritten: [PageRange] = []

    /// None.
    package init() {}
  }

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
  package init(_ path: String, name: String) throws(KernelError) {
    let session = try Directory.open(path, followSymlink: true)
    let directory = try session.createDirectory(name)
    let inventory = try OwnedPipe()
    try directory.createSymlink(
      ImageFormat.inventoryName, to: "/proc/\(getpid())/fd/\(inventory.output.number)")
    self.session = session
    self.directory = directory
    self.path = path
    self.name = name
    self.inventory = consume inventory
  }

  /// Puts everything there that CRIU restores from, and lets it begin.
  ///
  /// - Parameter workers: threads that decode.
  package mutating func fill(_ memory: Memory, workers: Int) throws {
    let state = try session.directory(StateImages.directoryName)
    let names = try state.names()
    var own: Set<String> = [ImageFormat.inventoryName]
    if memory != .rounds {
      own.insert(ImageFormat.parentName)
      let inRounds = try ImageChain(path).processes()
      for pid in Self.processes(in: names) {
        let name = ImageFormat.pagemapName(pid: pid)
        own.insert(name)
        if inRounds.contains(pid) {
          try write(pid, state, memory, workers: workers)
        } else {
          try copyPagemap(name, state)
        }
      }
    }
    for file in names where !own.contains(file) {
      let isParent = file == ImageFormat.parentName
      try directory.createSymlink(
        file,
        to: isParent ? state.readSymlink(file) : "../\(StateImages.directoryName)/\(file)")
    }
    try begin(state, isCompressed: memory == .rounds ? Self.isCompressed(path) : false)
  }

  /// Tells a CRIU that waits that there will be nothing to restore.
  package mutating func abandon() {
    // CRIU may open it only now; then it must not be there. A failure leaves a link to nothing.
    try? directory.removeFile(ImageFormat.inventoryName)
    inventory = nil
  }

  private mutating func write(
    _ pid: Int32, _ state: borrowing Directory, _ memory: Memory, workers: Int
  ) throws {
    if memory == .later {
      let pages = try LazyPagemap.write(pid, of: path, state, to: directory, eagerBytes: 0)
      lazyPages[pid, default: LazyPages()].all = pages.lazy
      lazyPages[pid]?.rewritten = pages.rewritten
    } else {
      let pagesID = try PagemapReader(ImageFormat.pagemapName(pid: pid), in: state).pagesID
      mergedPages += try MergedPages.write(
        path, pid: pid, pagesID: pagesID, in: directory, workers: workers)
    }
  }

  /// A process that only CRIU dumped: all its pages are there, and none comes later.
  private func copyPagemap(_ name: String, _ state: borrowing Directory) throws {
    var theirs = try PagemapReader(name, in: state)
    var writer = try PagemapWriter(name, in: directory, pagesID: theirs.pagesID)
    while try theirs.advance() { try writer.append(theirs.entry.range, flags: .present) }
    try writer.finish()
  }

  /// Gives CRIU its inventory, whether it waits for it or comes later.
  private mutating func begin(_ state: borrowing Directory, isCompressed: Bool) throws {
    guard let waiting = inventory.take() else { return }
    let name = ImageFormat.inventoryName
    let whole = name + ".whole"
    try Inventory.rewrite(from: state, to: directory, as: whole, isCompressed: isCompressed)
    let bytes = try readToEnd(directory.openFile(whole), path: directory.join(whole))
    try bytes.withUnsafeBufferPointer { bytes throws(KernelError) in
      try waiting.input.write(UnsafeRawBufferPointer(bytes), subject: directory.join(name))
    }
    // Before the pipe is closed: its number may be another file's afterwards.
    try directory.renameReplacing(whole, to: name)
  }

  deinit {
    // Nobody can be told that this failed; what is left over is named restore-PID.
    for file in (try? directory.names()) ?? [] { try? directory.removeFile(file) }
    try? session.removeDirectory(name)
  }
}
