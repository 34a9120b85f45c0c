package import Kernel

/// CRIU's images of everything that is not memory, in the directory `criu` of a session, over the
/// rounds that have the memory.
///
///     DIR/criu/core-PID.img ...     as CRIU wrote them
///     DIR/criu/pagemap-PID.img      ours: every page is in the parent
///     DIR/criu/parent -> ../round-003
///
/// Shared memory is kept as CRIU wrote it: only CRIU knows by which number it will ask for an object.
package struct StateImages: ~Copyable {
  /// The directory's name in the session's.
  package static let directoryName = "criu"

  private let chain: ImageChain
  private let partial: PartialDirectory
  private let top: String
  private let members: [RoundRecord.Member]
  /// The processes whose memory the rounds have.
  package let pids: [Int32]
  /// Who was dumped: the target, then its descendants that were dumped with it.
  package var targets: [TargetIdentity] { members.filter { !$0.isGone }.map(\.target) }

  /// Takes images that are yet to come for those of the session at `path`. As below.
  package init(_ path: String) throws(ImageError) {
    try self.init(path, in: StateDirectory(path))
  }

  /// Takes the images that grow in `place` for those of the session at `path`.
  ///
  /// - Throws: what is wrong with the chain; `.misuse` if its newest round was not taken from the
  ///   frozen process.
  package init(_ path: String, in place: consuming StateDirectory) throws(ImageError) {
    let chain = try ImageChain(path)
    if let problem = chain.linkProblem { throw problem }
    guard chain.isSession, let top = chain.rounds.first else {
      throw ImageError(.missingFile, file: path, "this is no directory of a dump with rounds")
    }
    let record = try chain.topRecord()
    guard record.kind == .frozen else {
      throw ImageError(
        .misuse, file: chain.session.join(top),
        "the newest round was taken from the running process")
    }
    let pids = try chain.processes()
    members = record.members
    (self.pids, self.top) = (pids, top)
    partial = place.release()
    self.chain = chain
  }

  /// Where the files grow.
  package var directory: Directory {
    _read { yield partial.directory }
  }

  /// Whether the pages of the pagemap with this file name are in the rounds.
  package func hasPages(ofPagemap name: String) -> Bool {
    Self.process(ofPagemap: name).map { pids.contains($0) } ?? false
  }

  /// Creates an image that CRIU sends.
  ///
  /// - Throws: `.value` for a name that is none of CRIU's.
  package func create(_ name: String) throws(ImageError) -> File {
    let path = partial.directory.join(name)
    guard !name.isEmpty, !name.hasPrefix("."), !name.contains("/"), name != ImageFormat.parentName
    else { throw ImageError(.value, file: path, "CRIU sends an image of an impossible name") }
    let number = try onFile(path) { () throws(KernelError) in
      try partial.directory.createFile(name)
    }
    return File(number, path: path)
  }

  /// Puts pagemaps that refer to the rounds in the place of CRIU's, and lets the processes be
  /// restored running.
  ///
  /// - Returns: bytes of pages that CRIU had dumped all the same; the rounds have them too.
  /// - Throws: `.parentPage` if CRIU found memory that the rounds do not have: the process ran after
  ///   the last round, and its rounds are worth nothing for this dump.
  ///   `.lazyPage` if CRIU left pages out of a process that the rounds do not have.
  @discardableResult package func referToRounds() throws(ImageError) -> UInt64 {
    let names = try onFile(partial.directory.path) { () throws(KernelError) in
      try partial.directory.names()
    }
    for name in names where ImageStream(pagemapName: name) != nil && !hasPages(ofPagemap: name) {
      try checkPresence(name)
    }
    var replacedBytes: UInt64 = 0
    for pid in pids {
      try checkCoverage(pid)
      replacedBytes += try writePagemap(pid, names)
      try TaskState.makeRunning(pid: pid, in: partial.directory)
    }
    if try Inventory.read(in: chain.open(top)).version >= ImageFormat.compressedVersion {
      try Inventory.rewrite(from: partial.directory, to: partial.directory, isCompressed: true)
    }
    try onFile(partial.directory.join(ImageFormat.parentName)) { () throws(KernelError) in
      try partial.directory.createSymlink(ImageFormat.parentName, to: "../\(top)")
    }
    return replacedBytes
  }

  /// How many bytes all images have together.
  package func byteCount() throws(ImageError) -> UInt64 {
    try onFile(partial.directory.path) { () throws(KernelError) in
      var sum: UInt64 = 0
      for name in try partial.directory.names() where name != ImageFormat.parentName {
        sum += try File(partial.directory.openFile(name), path: name).byteCount()
      }
      return sum
    }
  }

  /// Gives the directory its name. With `sync`, it survives a power cut.
  package consuming func publish(sync: Bool) throws(ImageError) {
    if sync {
      for name in try onFile(
        partial.directory.path,
        { () throws(KernelError) in
          try partial.directory.names()
        }) where name != ImageFormat.parentName
      {
        try onFile(partial.directory.join(name)) { () throws(KernelError) in
          try File(partial.directory.openFile(name), path: name).sync()
        }
      }
    }
    try partial.publish(sync: sync)
  }

  /// CRIU's pagemap tells what was populated when CRIU looked. A page that only CRIU saw must be of a
  /// private file mapping: CRIU's own code was there for a moment, and the file has those bytes.
  private func checkCoverage(_ pid: Int32) throws(ImageError) {
    let name = ImageFormat.pagemapName(pid: pid)
    var theirs = try PagemapReader(name, in: partial.directory)
    var ours = try PagemapReader(name, in: chain.open(top))
    let vmas = members.first { $0.target.pid == pid }?.vmas ?? []
    var isInOurs = try ours.advance()
    while try theirs.advance() {
      var address = theirs.entry.range.start
      while address < theirs.entry.range.end {
        while isInOurs && ours.entry.range.end <= address { isInOurs = try ours.advance() }
        if isInOurs && ours.entry.range.start <= address {
          address = ours.entry.range.end
          continue
        }
        guard vmas.contains(where: { $0.kind == .privateFile && $0.range.contains(address) }) else {
          throw ImageError(
            .parentPage, file: theirs.path, address: address,
            "CRIU found a page that is not in round \(top): the process ran after that round")
        }
        address += pageBytes
      }
    }
  }

  /// CRIU restores zeros where an image says that a page comes later, and says nothing.
  private func checkPresence(_ name: String) throws(ImageError) {
    var theirs = try PagemapReader(name, in: partial.directory)
    while try theirs.advance() {
      guard theirs.entry.flags.contains(.present) else {
        throw ImageError(
          .lazyPage, file: theirs.path, address: theirs.entry.range.start,
          "CRIU left a page out that is in no round: dump this tree with predump --tree")
      }
    }
  }

  /// - Returns: bytes of CRIU's pages.
  private func writePagemap(_ pid: Int32, _ names: [String]) throws(ImageError) -> UInt64 {
    let name = ImageFormat.pagemapName(pid: pid)
    let pagesID = try PagemapReader(name, in: partial.directory).pagesID
    // What CRIU copied of a process that it left out otherwise.
    let pages = ImageFormat.pagesName(pagesID)
    var pageBytes: UInt64 = 0
    for replaced in names where replaced == name || replaced == pages {
      try onFile(partial.directory.join(replaced)) { () throws(KernelError) in
        if replaced == pages {
          pageBytes = try File(partial.directory.openFile(pages), path: pages).byteCount()
        }
        try partial.directory.removeFile(replaced)
      }
    }
    var ours = try PagemapReader(name, in: chain.open(top))
    var writer = try PagemapWriter(name, in: partial.directory, pagesID: pagesID)
    while try ours.advance() { try writer.append(ours.entry.range, flags: .parent) }
    try writer.finish()
    return pageBytes
  }
}

extension StateImages {
  /// The process whose pagemap has this file name; nil if it is none's.
  package static func process(ofPagemap name: String) -> Int32? {
    if case .process(let pid)? = ImageStream(pagemapName: name) { pid } else { nil }
  }

  /// Removes what `publish` made in the session at `path`, after a restore that came to nothing.
  package static func remove(from path: String) throws(ImageError) {
    try onFile(path) { () throws(KernelError) in
      let session = try Directory.open(path, followSymlink: true)
      let directory = try session.directory(directoryName)
      for name in try directory.names() { try directory.removeFile(name) }
      try session.removeDirectory(directoryName)
    }
  }
}
