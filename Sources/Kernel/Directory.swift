internal import CLinux
internal import Glibc
internal import SystemPackage

/// An open directory; every name below it is resolved from it, never out of it, and never through a
/// symbolic link (openat2(2)).
package struct Directory: ~Copyable, Sendable {
  /// The open directory (O_RDONLY).
  package let descriptor: OwnedDescriptor
  /// How people call it; used in messages only.
  package let path: String

  private init(_ descriptor: consuming OwnedDescriptor, path: String) {
    self.descriptor = descriptor
    self.path = path
  }

  /// Opens the directory at `path`, relative to the working directory.
  ///
  /// - Parameter followSymlink: whether the last component may be a symbolic link.
  package static func open(_ path: String, followSymlink: Bool) throws(KernelError) -> Directory {
    let flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | (followSymlink ? 0 : O_NOFOLLOW)
    let number = try invoke("open", on: path) { clinux_openat(AT_FDCWD, path, flags, 0) }
    return Directory(OwnedDescriptor(owning: number), path: path)
  }

  /// Creates the directory at `path`, mode 0700, and opens it. It must not exist.
  package static func create(_ path: String) throws(KernelError) -> Directory {
    _ = try invoke("mkdir", on: path) { clinux_mkdirat(AT_FDCWD, path, 0o700) }
    return try open(path, followSymlink: false)
  }

  /// Opens the directory `name` in this one. A symbolic link is refused.
  package func directory(_ name: String) throws(KernelError) -> Directory {
    let flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW
    return Directory(
      OwnedDescriptor(owning: try openNumber(name, flags: flags, mode: 0)), path: join(name))
  }

  /// Whether others than its owner and root can remove and replace what is in it.
  package func isOpenToOthers() throws(KernelError) -> Bool {
    var status = clinux_stat()
    _ = try invoke("fstat", on: path) { clinux_fstat(descriptor.number, &status) }
    let isSticky = status.mode & 0o1000 != 0
    return status.mode & 0o022 != 0 && !isSticky
  }

  /// A second handle on this directory.
  package func reopen() throws(KernelError) -> Directory {
    let flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC
    return Directory(
      OwnedDescriptor(owning: try openNumber(".", flags: flags, mode: 0)), path: path)
  }

  /// Opens the existing regular file `name` for reading.
  ///
  /// - Throws: `KernelError` with ELOOP for a symbolic link, with EISDIR or EINVAL for anything else
  ///   that is no regular file; a device is not even opened, which could set it to work.
  package func openFile(_ name: String) throws(KernelError) -> OwnedDescriptor {
    let pathOnly: CInt = 0o10000000  // O_PATH
    let place = OwnedDescriptor(
      owning: try openNumber(name, flags: pathOnly | O_CLOEXEC | O_NOFOLLOW, mode: 0))
    var status = clinux_stat()
    _ = try invoke("fstat", on: join(name)) { clinux_fstat(place.number, &status) }
    switch status.mode & S_IFMT {
    case S_IFREG: break
    case S_IFLNK:
      throw KernelError(call: "open", subject: join(name), errno: .tooManySymbolicLinkLevels)
    case S_IFDIR: throw KernelError(call: "open", subject: join(name), errno: .isDirectory)
    default: throw KernelError(call: "open", subject: join(name), errno: .invalidArgument)
    }
    // The very file that was looked at, whatever has that name now.
    let number = try invoke("open", on: join(name)) {
      clinux_openat(AT_FDCWD, "/proc/thread-self/fd/\(place.number)", O_RDONLY | O_CLOEXEC, 0)
    }
    return OwnedDescriptor(owning: number)
  }

  /// Creates the file `name` for reading and writing, mode 0600. It must not exist.
  package func createFile(_ name: String) throws(KernelError) -> OwnedDescriptor {
    let flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW
    return OwnedDescriptor(owning: try openNumber(name, flags: flags, mode: 0o600))
  }

  /// Creates the program `name` with this text, mode 0700. It must not exist.
  package func createProgram(_ name: String, text: String) throws(KernelError) {
    let number = try openNumber(
      name, flags: O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode: 0o700)
    let file = File(OwnedDescriptor(owning: number), path: join(name))
    try Array(text.utf8).withUnsafeBufferPointer { bytes throws(KernelError) in
      try file.write(UnsafeRawBufferPointer(bytes))
    }
  }

  /// Creates the directory `name`, mode 0700, and opens it. It must not exist.
  package func createDirectory(_ name: String) throws(KernelError) -> Directory {
    _ = try invoke("mkdir", on: join(name)) { clinux_mkdirat(descriptor.number, name, 0o700) }
    return try directory(name)
  }

  /// Renames `name` to `newName` inside this directory; refuses to replace anything.
  package func rename(_ name: String, to newName: String) throws(KernelError) {
    let noReplace: CUnsignedInt = 1
    _ = try invoke("rename", on: join(name)) {
      clinux_renameat2(descriptor.number, name, descriptor.number, newName, noReplace)
    }
  }

  /// Renames `name` over `newName`, replacing it in one step.
  package func renameReplacing(_ name: String, to newName: String) throws(KernelError) {
    _ = try invoke("rename", on: join(name)) {
      clinux_renameat2(descriptor.number, name, descriptor.number, newName, 0)
    }
  }

  /// Removes the file `name`.
  package func removeFile(_ name: String) throws(KernelError) {
    _ = try invoke("unlink", on: join(name)) { clinux_unlinkat(descriptor.number, name, 0) }
  }

  /// Removes the empty directory `name`.
  package func removeDirectory(_ name: String) throws(KernelError) {
    _ = try invoke("rmdir", on: join(name)) {
      clinux_unlinkat(descriptor.number, name, AT_REMOVEDIR)
    }
  }

  /// Creates a symbolic link `name` that points at `target`.
  package func createSymlink(_ name: String, to target: String) throws(KernelError) {
    _ = try invoke("symlink", on: join(name)) {
      clinux_symlinkat(target, descriptor.number, name)
    }
  }

  /// What the symbolic link `name` points at.
  package func readSymlink(_ name: String) throws(KernelError) -> String {
    var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = try invoke("readlink", on: join(name)) {
      clinux_readlinkat(descriptor.number, name, &bytes, bytes.count)
    }
    return String(decoding: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// The names in this directory, sorted, without `.` and `..`.
  package func names() throws(KernelError) -> [String] {
    // A descriptor of its own: the directory's read position is shared state.
    let listing = try directory(".")
    var buffer = [UInt8](repeating: 0, count: 32 * 1024)
    var names: [String] = []
    while true {
      let count = try invoke("getdents64", on: path) {
        clinux_getdents(listing.descriptor.number, &buffer, buffer.count)
      }
      if count == 0 { return names.sorted() }
      // struct linux_dirent64: u64 ino, s64 off, u16 reclen, u8 type, char name[]
      var offset = 0
      while offset < count {
        let length = Int(buffer[offset + 16]) | Int(buffer[offset + 17]) << 8
        let name = buffer[(offset + 19)..<(offset + length)].prefix { $0 != 0 }
        let text = String(decoding: name, as: UTF8.self)
        if text != "." && text != ".." { names.append(text) }
        offset += length
      }
    }
  }

  /// Makes renames and new names in this directory survive a power cut.
  package func sync() throws(KernelError) {
    _ = try invoke("fsync", on: path) { clinux_fsync(descriptor.number) }
  }

  /// Bytes this user may still write on this directory's file system.
  package func freeBytes() throws(KernelError) -> UInt64 {
    var bytes: UInt64 = 0
    _ = try invoke("statvfs", on: path) { clinux_free_bytes(descriptor.number, &bytes) }
    return bytes
  }

  /// `name` as people would write it, for messages.
  package func join(_ name: String) -> String {
    path.hasSuffix("/") ? path + name : "\(path)/\(name)"
  }

  private func openNumber(_ name: String, flags: CInt, mode: CUnsignedInt) throws(KernelError)
    -> CInt
  {
    try invoke("open", on: join(name)) {
      clinux_open_beneath(descriptor.number, name, flags, mode)
    }
  }
}
