internal import CLinux
internal import SystemPackage

/// Gives another process the pages that its memory lacks, by a userfaultfd of that process which has
/// registered them (UFFDIO_REGISTER_MODE_MISSING, Linux 4.11). A thread that touches one waits until
/// it is there. With this value all that are still missing become ordinary: zero.
package struct MissingPages: ~Copyable, Sendable {
  private let userfaultfd: OwnedDescriptor
  private let subject: String

  /// Takes over the userfaultfd, which must not block.
  package init(_ userfaultfd: consuming OwnedDescriptor, of subject: String) {
    self.userfaultfd = userfaultfd
    self.subject = subject
  }

  /// Whether this kernel tells of all that becomes of such memory (fork, mremap, madvise, munmap):
  /// what CRIU asks for.
  package static func areOffered() throws(KernelError) -> Bool {
    let events: UInt64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6
    return try Userfaultfd.offeredFeatures().rawValue & events == events
  }

  /// Becomes readable when a thread waits for a page, or when the process changes its memory.
  package var descriptor: CInt { userfaultfd.number }

  /// What happens in the address space.
  package enum Event: ~Copyable {
    /// A thread waits for the page at this address.
    case fault(UInt64)
    /// What is in the range is dropped or unmapped: what comes to be there is not what was.
    case removed(PageRange)
    /// The range has been moved to an address.
    case moved(PageRange, to: UInt64)
    /// A child has a copy, in which the same pages are missing.
    case forked(MissingPages)
  }

  /// The next event; nil if there is none. But for a fault, the process goes on when it is taken, and
  /// nothing can be given until then.
  package func next() throws(KernelError) -> Event? {
    var message = clinux_uffd_message()
    let kind = try invoke("read", on: subject) { clinux_uffd_next(userfaultfd.number, &message) }
    switch clinux_uffd_event(rawValue: UInt32(kind)) {
    case CLINUX_UFFD_FAULT: return .fault(message.first / pageBytes * pageBytes)
    case CLINUX_UFFD_REMOVE:
      return .removed(PageRange(start: message.first, end: message.second))
    case CLINUX_UFFD_REMAP:
      let range = PageRange(start: message.first, end: message.first + message.third)
      return .moved(range, to: message.second)
    case CLINUX_UFFD_FORK:
      let child = OwnedDescriptor(owning: CInt(message.first))
      return .forked(MissingPages(child, of: "a child of \(subject)"))
    default: return nil
    }
  }

  /// Gives whole pages from `address` on; those that are there stay as they are.
  ///
  /// - Throws: `KernelError` with EAGAIN while the process changes its memory: take its messages
  ///   first; with ENOENT where nothing is registered.
  package func give(_ bytes: UnsafeRawBufferPointer, at address: UInt64) throws(KernelError) {
    guard let base = bytes.baseAddress else { return }
    var done = 0
    while done < bytes.count {
      let count = try invoke(
        "ioctl(UFFDIO_COPY)", on: "\(subject) \(hexAddress(address + UInt64(done)))"
      ) { () -> Int in
        let result = clinux_uffd_copy(
          userfaultfd.number, address + UInt64(done), base + done, UInt64(bytes.count - done))
        return result == -Int(Errno.fileExists.rawValue) ? Int(pageBytes) : result
      }
      done += count
    }
  }

  /// Makes the page at `address` zero, unless it is there.
  package func giveZeros(at address: UInt64) throws(KernelError) {
    _ = try invoke("ioctl(UFFDIO_ZEROPAGE)", on: "\(subject) \(hexAddress(address))") {
      let result = clinux_uffd_zero(userfaultfd.number, address, pageBytes)
      return result == -Errno.fileExists.rawValue ? 0 : result
    }
  }

  /// Lets threads that wait for the page at `address` look again.
  package func wake(at address: UInt64) throws(KernelError) {
    _ = try invoke("ioctl(UFFDIO_WAKE)", on: "\(subject) \(hexAddress(address))") {
      clinux_uffd_wake(userfaultfd.number, address, pageBytes)
    }
  }
}
