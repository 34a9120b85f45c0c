/// Memory that the process itself cannot read (PROT_NONE), and who may read it all the same.
package enum InaccessibleMemory {
  /// Whether `/proc/PID/mem` reads it at any time. Otherwise only the thread that traces the process
  /// can (CONFIG_PROC_MEM_FORCE_PTRACE: Debian from Linux 7.2 on), or nobody: the kernel's parameter
  /// `proc_mem.force_override` (Linux 6.12) says which.
  ///
  /// Tried on a page of memdump's own.
  package static func isReadableByAnyone() throws(KernelError) -> Bool {
    let memory = try SelfTestMemory(pageCount: 1)
    memory.storeAll(7)
    try memory.setProtection(memory.range, readable: false, writable: false)
    let file = ProcessMemory(file: try ThisThread.open("mem"))
    var bytes = [UInt8](repeating: 0, count: Int(pageBytes))
    var outcome = Swift.Result<ProcessMemory.ReadResult, KernelError>.success(.pages(0))
    bytes.withUnsafeMutableBytes { buffer in
      do throws(KernelError) {
        outcome = .success(try file.readPages(at: memory.range.start, into: buffer))
      } catch { outcome = .failure(error) }
    }
    let result = try outcome.get()
    return result == .pages(1) && bytes[0] == 7
  }
}
