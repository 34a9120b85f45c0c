internal import CLinux
internal import SystemPackage

/// An open file and its name for messages.
package struct File: ~Copyable, Sendable {
  /// The open file.
  package let descriptor: OwnedDescriptor
  /// How people call it; used in messages only.
  package let path: String

  /// Takes over an open descriptor.
  package init(_ descriptor: consuming OwnedDescriptor, path: String) {
    self.descriptor = descriptor
    self.path = path
  }

  /// Opens the existing file at `path` for reading; symbolic links are followed.
  package static func open(_ path: String) throws(KernelError) -> File {
    let readOnlyCloseOnExec: CInt = 0o2000000
    let number = try invoke("open", on: path) {
      clinux_openat(-100, path, readOnlyCloseOnExec, 0)
    }
    return File(OwnedDescriptor(owning: number), path: path)
  }

  /// A new file in memory, without a name in any directory (memfd_create(2)).
  package static func anonymous(name: String) throws(KernelError) -> File {
    let number = try invoke("memfd_create", on: name) { clinux_memfd_create(name) }
    return File(OwnedDescriptor(owning: number), path: name)
  }

  /// What takes every byte and keeps none (null(4)).
  package static func discarding() throws(KernelError) -> File {
    let path = "/dev/null"
    let writeOnlyCloseOnExec: CInt = 0o2000001
    let number = try invoke("open", on: path) {
      clinux_openat(-100, path, writeOnlyCloseOnExec, 0)
    }
    return File(OwnedDescriptor(owning: number), path: path)
  }

  /// Makes the file `byteCount` bytes long.
  package func resize(to byteCount: UInt64) throws(KernelError) {
    _ = try invoke("ftruncate", on: path) { clinux_ftruncate(descriptor.number, byteCount) }
  }

  /// Reads up to `buffer.count` bytes at `offset`; fewer only at the end of the file.
  package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64)
    throws(KernelError) -> Int
  {
    guard let base = buffer.baseAddress else { return 0 }
    var done = 0
    while done < buffer.count {
      let count = try invoke("pread", on: "\(path) at offset \(offset + UInt64(done))") {
        clinux_pread(
          descriptor.number, base + done, buffer.count - done, offset + UInt64(done))
      }
      if count == 0 { break }
      done += count
    }
    return done
  }

  /// Writes all bytes at the file's position.
  package func write(_ bytes: UnsafeRawBufferPointer) throws(KernelError) {
    guard let base = bytes.baseAddress else { return }
    var done = 0
    while done < bytes.count {
      let count = try invoke("write", on: path) {
        clinux_write(descriptor.number, base + done, bytes.count - done)
      }
      // write(2) returns 0 for a non-empty buffer only when it cannot go on.
      if count == 0 { throw KernelError(call: "write", subject: path, errno: .noSpace) }
      done += count
    }
  }

  /// Writes all bytes at `offset`.
  package func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(KernelError) {
    guard let base = bytes.baseAddress else { return }
    var done = 0
    while done < bytes.count {
      let count = try invoke("pwrite", on: "\(path) at offset \(offset + UInt64(done))") {
        clinux_pwrite(
          descriptor.number, base + done, bytes.count - done, offset + UInt64(done))
      }
      if count == 0 { throw KernelError(call: "pwrite", subject: path, errno: .noSpace) }
      done += count
    }
  }

  /// The file's length in bytes.
  package func byteCount() throws(KernelError) -> UInt64 {
    var status = clinux_stat()
    _ = try invoke("fstat", on: path) { clinux_fstat(descriptor.number, &status) }
    return status.size
  }

  /// The next run of bytes at or after `offset` that holds data, from SEEK_DATA and SEEK_HOLE, in
  /// bytes; nil if only a hole follows.
  package func data(from offset: UInt64) throws(KernelError) -> Range<UInt64>? {
    let (seekData, seekHole): (CInt, CInt) = (3, 4)
    let start = clinux_lseek(descriptor.number, Int64(offset), seekData)
    if start == -Int64(Errno.noSuchAddressOrDevice.rawValue) { return nil }
    _ = try invoke("lseek(SEEK_DATA)", on: path) { start }
    let end = clinux_lseek(descriptor.number, start, seekHole)
    // Cut off below `start` between the two calls.
    if end == -Int64(Errno.noSuchAddressOrDevice.rawValue) { return nil }
    _ = try invoke("lseek(SEEK_HOLE)", on: path) { end }
    return UInt64(start)..<UInt64(end)
  }

  /// Sets the disk to work on bytes that were written, without waiting. A hint: `sync` is what makes
  /// them safe.
  package func startWriteback(from offset: UInt64, byteCount: UInt64) {
    _ = clinux_start_writeback(descriptor.number, offset, byteCount)
  }

  /// Makes the file's bytes survive a power cut.
  package func sync() throws(KernelError) {
    _ = try invoke("fsync", on: path) { clinux_fsync(descriptor.number) }
  }
}
