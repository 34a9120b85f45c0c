/// The kernel's tracking of written pages in all of a process at once (CONFIG_MEM_SOFT_DIRTY,
/// admin-guide/mm/soft-dirty.rst): a mark on every page that was written since somebody last took the
/// marks away. There is one for everybody: who takes it away takes it from all.
package enum SoftDirty {
  /// Whether this kernel has it, tried on a page of memdump's own that was just written. No mark is
  /// taken away for that.
  package static func isTracked() throws(KernelError) -> Bool {
    let memory = try SelfTestMemory(pageCount: 1)
    memory.storeAll(1)
    let scanner = PagemapScanner(pagemap: try ThisThread.open("pagemap"))
    return try scanner.count(memory.range, filter: .softDirty) > 0
  }
}

extension TargetProcess {
  /// Takes the marks off all pages of the process.
  package func clearSoftDirty() throws(KernelError) {
    let file = try open("clear_refs", writable: true)
    try [UInt8(ascii: "4")].withUnsafeBufferPointer { bytes throws(KernelError) in
      try file.write(UnsafeRawBufferPointer(bytes))
    }
  }

  /// Whether marks may be taken off this process's pages without harm to anybody: we are allowed to,
  /// and nobody has done so before, who would then look at what was written since. The kernel marks
  /// each mapping as a whole when it is made, until marks are taken away for the first time.
  ///
  /// Reads smaps, which takes some 10 ms for each GiB in small pages.
  package func lendsSoftDirty() -> Bool {
    do throws(KernelError) {
      _ = try open("clear_refs", writable: true)
      return VMAFlags.parse(smaps: try read("smaps")).allSatisfy { range, flags in
        // The kernel's own page is no mapping, and execve makes the stack without the mark.
        flags.contains(.softDirty) || flags.contains(.growsDown) || range.start >= 1 << 63
      }
    } catch { return false }
  }
}
