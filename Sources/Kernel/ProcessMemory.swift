internal import CLinux
internal import Synchronization
internal import SystemPackage

/// `/proc/PID/mem`: another process's memory, whatever its protection.
///
/// process_vm_readv is faster but was measured to unshare copy-on-write pages and to split huge
/// pages of the target; this file does neither. Reading a hole populates it: callers do not.
package struct ProcessMemory: ~Copyable, Sendable {
  private let file: File
  private let substitute = Mutex<Substitute?>(nil)

  /// Reads from an address on; returns the bytes of whole pages that it read, 0 if there are none.
  package typealias Substitute = @Sendable (UInt64, UnsafeMutableRawBufferPointer) -> Int

  /// Reads through an open `/proc/PID/mem`.
  package init(file: consuming File) { self.file = file }

  /// Lets somebody else read what this thread may not: some kernels let the tracer alone read what
  /// the process itself cannot (`InaccessibleMemory`).
  package func readUnreadable(through substitute: @escaping Substitute) {
    self.substitute.withLock { $0 = substitute }
  }

  /// What a read found.
  package enum ReadResult: Sendable, Equatable {
    /// So many whole pages from the start on; what follows, if anything, cannot be read.
    case pages(Int)
    /// The address space no longer exists: the process exited or called execve.
    case addressSpaceGone
  }

  /// Whether the process has exited or called execve.
  ///
  /// A scan does not tell: over an address space that is gone, PAGEMAP_SCAN reports nothing and
  /// succeeds (measured on Linux 6.18). A read of any address tells: 0 bytes mean gone, EIO means
  /// that nothing is mapped there.
  package var isAddressSpaceGone: Bool {
    var byte: UInt8 = 0
    return clinux_pread(file.descriptor.number, &byte, 1, 0) == 0
  }

  /// Reads whole pages at `address` until `buffer` is full or a page cannot be read.
  package func readPages(at address: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(KernelError) -> ReadResult
  {
    guard let base = buffer.baseAddress else { return .pages(0) }
    var done = 0
    while done < buffer.count {
      let count = clinux_pread(
        file.descriptor.number, base + done, buffer.count - done, address + UInt64(done))
      if count == 0 { return .addressSpaceGone }
      if count < 0 {
        let errno = Errno(rawValue: CInt(-count))
        if errno == .interrupted { continue }
        // EIO: unmapped since, a guard page, beyond a file's end, secret memory, or inaccessible
        // memory where the kernel keeps that to tracers.
        if errno == .ioError || errno == .badAddress {
          let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
          // One at a time: the substitute is one thread.
          let start = address + UInt64(done)
          let count = substitute.withLock { $0?(start, rest) ?? 0 }
          if count <= 0 { break }
          done += count
          continue
        }
        throw KernelError(
          call: "pread", subject: "\(file.path) at \(hexAddress(address + UInt64(done)))",
          errno: errno)
      }
      done += count
    }
    return .pages(done / Int(pageBytes))
  }

  /// Reads exactly `buffer.count` bytes at `address`, page borders or not.
  package func read(at address: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(KernelError)
  {
    let count = try file.read(into: buffer, at: address)
    if count != buffer.count {
      throw KernelError(
        call: "pread", subject: "\(file.path) at \(hexAddress(address))", errno: .ioError)
    }
  }

  /// Writes all bytes at `address`, whatever the protection (FOLL_FORCE).
  package func write(_ bytes: UnsafeRawBufferPointer, at address: UInt64) throws(KernelError) {
    try file.write(bytes, at: address)
  }
}

/// A process's memory that several threads read.
package final class SharedProcessMemory: Sendable {
  package let memory: ProcessMemory

  package init(_ memory: consuming ProcessMemory) { self.memory = memory }
}
