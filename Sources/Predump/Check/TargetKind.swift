internal import Kernel
internal import SystemPackage

/// Whether a process is of a kind that has an address space of its own, and a 64-bit one.
enum TargetKind {
  private static let id = "target.kind"
  private static let title = "a 64-bit process with memory of its own"

  /// Judges by what `/proc` tells everybody first, and by what needs rights then; where those are
  /// missing it says nothing against the process: `target.permission` will.
  static func check(_ process: borrowing TargetProcess) throws(KernelError) -> GroundFinding {
    let stat = try process.stat()
    if stat.isKernelThread { return unsuitable(process, "it is a kernel thread: it has no memory") }
    let hasLiveThread: Bool =
      if ["Z", "X"].contains(stat.state) { try process.liveThread() != nil } else { true }
    if !hasLiveThread {
      return unsuitable(
        process, "it has ended and waits for its parent, process \(stat.parent), to reap it")
    }
    if is32Bit(process) {
      return unsuitable(process, "it is a 32-bit program; memdump supports 64-bit ones (x86-64)")
    }
    if sharesMemory(process, with: stat.parent) {
      return unsuitable(
        process, "it shares its memory with its parent, process \(stat.parent) (vfork)",
        remedy: "dump that one, or wait until this one has called execve")
    }
    if let child = sharingChild(process) {
      return .warning(
        id, title,
        "it shares its memory with its child, process \(child) (vfork), which is not "
          + "stopped in the freeze", remedy: "dump it once that child has called execve")
    }
    return .ok(id, title, "it is")
  }

  private static func unsuitable(
    _ process: borrowing TargetProcess, _ reason: String, remedy: String = ""
  ) -> GroundFinding {
    .unsuitable(id, title, reason, remedy: remedy, pid: process.pid)
  }

  /// EI_CLASS of the program (elf(5)), else the width of the auxiliary vector's entries.
  private static func is32Bit(_ process: borrowing TargetProcess) -> Bool {
    var header = [UInt8](repeating: 0, count: 5)
    if let count = try? read(process, "exe", into: &header), count == header.count,
      header.starts(with: [0x7f, UInt8(ascii: "E"), UInt8(ascii: "L"), UInt8(ascii: "F")])
    {
      return header[4] == 1
    }
    // The types of entries are small numbers: if the upper half of the first 64 bits is not 0, it
    // is the value of a 32-bit entry.
    let vector = (try? process.read("auxv")) ?? []
    return vector.count >= 8 && vector[4..<8].contains { $0 != 0 }
  }

  private static func read(
    _ process: borrowing TargetProcess, _ name: String, into bytes: inout [UInt8]
  ) throws(KernelError) -> Int {
    let file = try process.open(name)
    var result: Result<Int, KernelError> = .success(0)
    bytes.withUnsafeMutableBytes { buffer in
      do throws(KernelError) { result = .success(try file.read(into: buffer, at: 0)) } catch {
        result = .failure(error)
      }
    }
    return try result.get()
  }

  private static func sharesMemory(_ process: borrowing TargetProcess, with other: Int32) -> Bool {
    do throws(KernelError) {
      return other > 0 ? try process.sharesMemory(with: other) : false
    } catch { return false }
  }

  private static func sharingChild(_ process: borrowing TargetProcess) -> Int32? {
    let threads = (try? process.threadIDs()) ?? []
    for tid in threads {
      // CONFIG_PROC_CHILDREN; where it is not built in, this warning is all that is lost.
      guard let bytes = try? process.read("task/\(tid)/children") else { return nil }
      for word in bytes.split(separator: 0x20) {
        guard let child = Int32(String(decoding: word, as: UTF8.self)) else { continue }
        if sharesMemory(process, with: child) { return child }
      }
    }
    return nil
  }
}
