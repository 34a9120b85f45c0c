package import Kernel

/// Where a session's rounds go: a directory, the other end of a link, or both.
package struct SessionPlace: ~Copyable {
  private let local: LocalDirectory?
  /// The link; nil if rounds are stored here only.
  package let link: ImageLink?

  private final class LocalDirectory: Sendable {
    let directory: Directory
    init(_ directory: consuming Directory) { self.directory = directory }
  }

  /// A directory, and a link besides if there is one.
  package init(_ directory: consuming Directory, link: ImageLink? = nil) {
    local = LocalDirectory(directory)
    self.link = link
  }

  /// The other end of a link alone.
  package init(link: ImageLink) {
    local = nil
    self.link = link
  }

  private init(_ local: LocalDirectory?, _ link: ImageLink?) {
    self.local = local
    self.link = link
  }

  /// The same place once more.
  package func another() -> SessionPlace { SessionPlace(local, link) }

  /// Whether rounds are stored here.
  package var isLocal: Bool { local != nil }

  /// How people call the place.
  package var path: String { local?.directory.path ?? link?.subject ?? "" }

  /// The path of the directory here; nil if there is none.
  package var localPath: String? { local?.directory.path }

  /// Lets `latest` point at a complete round; at the other end of a link the receiver does that.
  package func pointLatest(to name: String) throws(ImageError) {
    if let local { try SessionLinks.pointLatest(to: name, in: local.directory) }
  }

  /// Starts a round.
  func begin(_ name: String, parentName: String?) throws(ImageError) -> PartialRound {
    var partial: PartialRound.Local?
    if let local {
      partial = try .init(PartialDirectory(name, in: local.directory), parentName)
    }
    return PartialRound(
      name: name, path: path, local: partial,
      outgoing: try link.map { (link) throws(ImageError) in
        try OutgoingRound(name, over: link)
      })
  }

  /// What a round needs to know of its parent.
  func parent(_ name: String, pid: Int32) throws(ImageError) -> ParentRound {
    if let local { return try ParentRound(name, in: local.directory, pid: pid) }
    guard let parent = link?.parent, parent.name == name else {
      throw ImageError(.misuse, file: path, "the parent \(name) was not sent before")
    }
    return parent
  }

  /// Writes the session's record.
  package func write(_ record: SessionRecord, sync: Bool) throws(ImageError) {
    if let local { try record.write(in: local.directory, sync: sync) }
    if let link { try record.send(over: link) }
  }
}

/// A round that is not finished, here and at the other end of a link.
struct PartialRound: ~Copyable, ImageFolder {
  let name: String
  let path: String
  private let local: Local?
  private let outgoing: OutgoingRound?

  /// Holds the directory, which cannot be copied, where it may be absent.
  final class Local {
    private var partial: PartialDirectory?
    let directory: Directory
    let unsynced = UnsyncedFiles()

    init(_ partial: consuming PartialDirectory, _ parentName: String?) throws(ImageError) {
      try partial.linkParent(parentName)
      let path = partial.directory.path
      directory = try onFile(path) { () throws(KernelError) in try partial.directory.reopen() }
      self.partial = consume partial
    }

    func publish(sync: Bool) throws(ImageError) { try partial.take()?.publish(sync: sync) }
  }

  init(name: String, path: String, local: Local?, outgoing: OutgoingRound?) {
    self.name = name
    self.path = local?.directory.path ?? path
    self.local = local
    self.outgoing = outgoing
  }

  /// Whether it is nowhere but here.
  var isLocal: Bool { outgoing == nil }

  borrowing func createImage(_ name: String) throws(ImageError) -> ImageFile {
    let path = "\(path)/\(name)"
    var file: ImageFile.LocalFile?
    if let local {
      let created = try onFile(path) { () throws(KernelError) in
        try local.directory.createFile(name)
      }
      file = .init(File(created, path: path))
    }
    return ImageFile(
      path: path, local: file, remote: try outgoing?.beginFile(name), unsynced: local?.unsynced)
  }

  /// Makes the bytes of all finished files survive a power cut.
  borrowing func syncFiles() throws(ImageError) { try local?.unsynced.sync() }

  /// Gives the round its name, here and there. `round` is what its children need to know of it.
  consuming func publish(as round: ParentRound, sync: Bool) throws(ImageError) {
    try local?.publish(sync: sync)
    try outgoing?.commit(round)
  }
}

/// A round at the other end of a link; dropped there unless it was committed.
final class OutgoingRound {
  private let link: ImageLink
  private var isCommitted = false

  init(_ name: String, over link: ImageLink) throws(ImageError) {
    self.link = link
    try link.beginRound(name)
  }

  deinit { if !isCommitted { link.dropRound() } }

  func beginFile(_ name: String) throws(ImageError) -> OutgoingFile {
    try OutgoingFile(name, over: link)
  }

  func commit(_ round: ParentRound) throws(ImageError) {
    isCommitted = true
    try link.commitRound(round)
  }
}
