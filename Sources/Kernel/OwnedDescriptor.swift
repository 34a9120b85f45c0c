internal import CLinux

/// A file descriptor with one owner, closed when the owner goes.
package struct OwnedDescriptor: ~Copyable, Sendable {
  /// The kernel's number; valid while this value lives.
  package let number: CInt

  /// Takes over an open descriptor.
  package init(owning number: CInt) { self.number = number }

  // A failed close still closes on Linux: retrying could close somebody else's descriptor.
  deinit { _ = clinux_close(number) }

  /// Gives up ownership: the caller closes it.
  package consuming func release() -> CInt {
    let number = self.number
    discard self
    return number
  }

  /// Writes all of `bytes` at the file's position, or into the pipe.
  package func write(_ bytes: UnsafeRawBufferPointer, subject: String) throws(KernelError) {
    guard let base = bytes.baseAddress else { return }
    var done = 0
    while done < bytes.count {
      done += try invoke("write", on: subject) {
        clinux_write(number, base + done, bytes.count - done)
      }
    }
  }
}
