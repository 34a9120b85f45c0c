internal import CLinux

/// A userfaultfd of another process, used for asynchronous write-protect tracking alone
/// (Linux 6.7, admin-guide/mm/userfaultfd.rst). Closing it ends all tracking: every write-protect
/// bit it set is gone then.
package struct Userfaultfd: ~Copyable, Sendable {
  /// Features of UFFDIO_API that memdump looks at.
  package struct Features: OptionSet, Sendable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package static let protectPageFaults = Features(rawValue: 1 << 0)
    package static let protectHugetlbAndShared = Features(rawValue: 1 << 12)
    package static let protectUnpopulated = Features(rawValue: 1 << 13)
    package static let asynchronous = Features(rawValue: 1 << 15)
  }

  private let descriptor: OwnedDescriptor
  private let subject: String

  /// Takes over a fresh userfaultfd and asks for asynchronous write protection.
  ///
  /// No EVENT_* feature is asked for: with EVENT_REMAP write-protect bits travel with mremap, which
  /// makes swapped pages look clean, and the target waits in fork and mremap for us.
  package init(owning descriptor: consuming OwnedDescriptor, of subject: String)
    throws(KernelError)
  {
    self.descriptor = descriptor
    self.subject = "userfaultfd of \(subject)"
    var features = Features.asynchronous.rawValue
    _ = try invoke("ioctl(UFFDIO_API)", on: self.subject) {
      clinux_uffd_api(self.descriptor.number, &features)
    }
  }

  /// What this kernel offers, from a userfaultfd that is thrown away.
  package static func offeredFeatures() throws(KernelError) -> Features {
    let descriptor = try open()
    var features: UInt64 = 0
    _ = try invoke("ioctl(UFFDIO_API)", on: "userfaultfd") {
      clinux_uffd_api(descriptor.number, &features)
    }
    return Features(rawValue: features)
  }

  /// Makes a userfaultfd for this process, as the injected call does for the target.
  package static func open() throws(KernelError) -> OwnedDescriptor {
    let number = try invoke("userfaultfd", on: "this process") {
      clinux_userfaultfd(UserfaultfdCall.flags)
    }
    return OwnedDescriptor(owning: number)
  }

  /// Registers `range`, which may span several VMAs and the holes between them; if one VMA is
  /// refused, nothing is registered.
  package func register(_ range: PageRange) throws(KernelError) {
    _ = try invoke("ioctl(UFFDIO_REGISTER)", on: place(range)) {
      clinux_uffd_register(descriptor.number, range.start, range.byteCount)
    }
  }

  /// Ends tracking of `range`.
  package func unregister(_ range: PageRange) throws(KernelError) {
    _ = try invoke("ioctl(UFFDIO_UNREGISTER)", on: place(range)) {
      clinux_uffd_unregister(descriptor.number, range.start, range.byteCount)
    }
  }

  /// Makes every page of `range` count as written.
  ///
  /// A VMA that lost its registration in a merge keeps stale protect bits in its page table; they
  /// would hide the writes of that time. Clearing them after each registration is what finds them.
  package func clearProtection(_ range: PageRange) throws(KernelError) {
    // EAGAIN: the target is changing its address space this moment.
    while true {
      let result = clinux_uffd_clear_protection(descriptor.number, range.start, range.byteCount)
      if result == -11 { continue }
      _ = try invoke("ioctl(UFFDIO_WRITEPROTECT)", on: place(range)) { result }
      return
    }
  }

  private func place(_ range: PageRange) -> String {
    "\(subject) \(hexAddress(range.start))-\(hexAddress(range.end))"
  }
}

/// The userfaultfd(2) call as memdump makes it, in its own process or injected into a target.
package enum UserfaultfdCall {
  /// `__NR_userfaultfd` of x86-64.
  package static let number: UInt64 = 323
  /// O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY: the last needs no privilege where
  /// `vm.unprivileged_userfaultfd` is 0, and is enough for asynchronous protection.
  package static let flags: CInt = 0o2000000 | 0o4000 | 1
}
