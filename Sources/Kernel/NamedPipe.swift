internal import CLinux
internal import Glibc
internal import SystemPackage

/// A fifo(7) in the file system.
package enum NamedPipe {
  /// Writes a line to who reads the FIFO `name` in `directory`.
  ///
  /// - Returns: whether somebody does.
  package static func say(_ word: String, to name: String, in directory: borrowing Directory)
    throws(KernelError) -> Bool
  {
    let path = directory.join(name)
    let number: CInt
    do throws(KernelError) {
      number = try invoke("open", on: path) {
        clinux_openat(
          directory.descriptor.number, name, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW, 0)
      }
    } catch {
      // ENXIO: it is there, and nobody reads it.
      if [.noSuchAddressOrDevice, .noSuchFileOrDirectory].contains(error.errno) { return false }
      throw error
    }
    let pipe = OwnedDescriptor(owning: number)
    try Array("\(word)\n".utf8).withUnsafeBufferPointer { bytes throws(KernelError) in
      try pipe.write(UnsafeRawBufferPointer(bytes), subject: path)
    }
    return true
  }
}
