internal import CLinux
internal import SystemPackage

/// Memory of our own, straight from the kernel: it costs nothing until it is touched, and is given
/// back when its owner goes.
package struct AnonymousMemory: ~Copyable, @unchecked Sendable {
  // Sendable: the pointer is this value's alone, and a value has one owner.
  private let base: UnsafeMutableRawPointer
  /// Length in bytes.
  package let byteCount: Int

  /// Reserves `byteCount` bytes, rounded up to whole pages.
  package init(byteCount: Int) throws(KernelError) {
    let rounded = max(1, (byteCount + Int(pageBytes) - 1) / Int(pageBytes)) * Int(pageBytes)
    var address: UnsafeMutableRawPointer?
    _ = try invoke("mmap", on: "\(rounded) bytes for the freeze") {
      clinux_map_anonymous(rounded, &address)
    }
    guard let address else {
      throw KernelError(call: "mmap", subject: "\(rounded) bytes", errno: .noMemory)
    }
    base = address
    self.byteCount = rounded
  }

  deinit { _ = clinux_unmap(base, byteCount) }

  /// The bytes from `offset` on. Must not outlive this value.
  package func bytes(at offset: Int, count: Int) -> UnsafeMutableRawBufferPointer {
    precondition(offset >= 0 && count >= 0 && offset <= byteCount - count)
    return UnsafeMutableRawBufferPointer(start: base + offset, count: count)
  }

  /// Touches the first `count` bytes now, in huge pages where possible, so that a later copy into
  /// them meets no page fault. A wish: failure only costs time later.
  package func populate(first count: Int) {
    let (hugePage, populateWrite): (CInt, CInt) = (14, 23)
    _ = clinux_madvise(base, byteCount, hugePage)
    _ = clinux_madvise(base, min(count, byteCount), populateWrite)
  }
}
