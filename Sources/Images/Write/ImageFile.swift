internal import Kernel

/// Where a writer's files go.
protocol ImageFolder: ~Copyable {
  /// How people call it.
  var path: String { get }
  /// Creates the file `name`, which must not exist.
  borrowing func createImage(_ name: String) throws(ImageError) -> ImageFile
}

/// An image being written: a file, a file at the other end of a link, or both.
struct ImageFile: ~Copyable {
  /// How people call the file.
  let path: String
  private let local: LocalFile?
  private let remote: OutgoingFile?
  private let unsynced: UnsyncedFiles?

  /// Holds the open file, which cannot be copied, where it may be absent.
  final class LocalFile {
    let file: File
    init(_ file: consuming File) { self.file = file }

    func sync() throws(ImageError) {
      try onFile(file.path) { () throws(KernelError) in try file.sync() }
    }
  }

  /// - Parameter unsynced: where the file waits for its sync, if not in `finish`.
  init(
    path: String, local: LocalFile?, remote: OutgoingFile?, unsynced: UnsyncedFiles? = nil
  ) {
    self.path = path
    self.unsynced = unsynced
    self.local = local
    self.remote = remote
  }

  /// Writes bytes behind those before.
  func write(_ bytes: UnsafeRawBufferPointer) throws(ImageError) {
    if let local {
      try onFile(path) { () throws(KernelError) in try local.file.write(bytes) }
    }
    try remote?.append(bytes)
  }

  /// Sets the disk to work on bytes that were written.
  func startWriteback(from offset: UInt64, byteCount: UInt64) {
    local?.file.startWriteback(from: offset, byteCount: byteCount)
  }

  /// Ends the file; with `sync` its bytes survive a power cut then, or once those that wait are
  /// synced. What is at the other end of a
  /// link is its receiver's to sync.
  func finish(byteCount: UInt64, digest: Digest128, sync: Bool) throws(ImageError) {
    if sync, let local {
      if let unsynced {
        try unsynced.add(local)
      } else {
        try local.sync()
      }
    }
    try remote?.finish(byteCount: byteCount, digest: digest)
  }
}

extension Directory: ImageFolder {
  borrowing func createImage(_ name: String) throws(ImageError) -> ImageFile {
    let path = join(name)
    let created = try onFile(path) { () throws(KernelError) in try createFile(name) }
    return ImageFile(path: path, local: .init(File(created, path: path)), remote: nil)
  }
}

/// A file at the other end of a link.
final class OutgoingFile {
  private let link: ImageLink
  private let slot: UInt8

  /// Begins the file `name`.
  init(_ name: String, over link: ImageLink) throws(ImageError) {
    self.link = link
    slot = try link.beginFile(name)
  }

  func append(_ bytes: UnsafeRawBufferPointer) throws(ImageError) {
    try link.append(bytes, slot: slot)
  }

  func finish(byteCount: UInt64, digest: Digest128) throws(ImageError) {
    try link.endFile(slot: slot, byteCount: byteCount, digest: digest)
  }
}
