internal import CLinux
internal import Glibc
internal import SystemPackage

/// A process that cannot be mistaken for another one: its pid may be reused, its pidfd and its open
/// `/proc/PID` directory never speak of a successor.
package struct TargetProcess: ~Copyable, Sendable {
  /// The process id in this pid namespace.
  package let pid: Int32
  /// Clock ticks from boot to the process's start.
  package let startTicks: UInt64
  private let pidDescriptor: OwnedDescriptor
  private let procDirectory: Directory

  /// Takes hold of the process `pid`.
  ///
  /// - Throws: `KernelError` with ESRCH or ENOENT if there is none.
  package init(pid: Int32) throws(KernelError) {
    let subject = "pid \(pid)"
    let number = try invoke("pidfd_open", on: subject) { clinux_pidfd_open(pid, 0) }
    let pidDescriptor = OwnedDescriptor(owning: number)
    let procDirectory = try Directory.open("/proc/\(pid)", followSymlink: false)
    let stat = try ProcessStat(parsing: try Self.read("stat", in: procDirectory))
    // The pidfd was first: if its process still runs now, the directory is the same process's.
    // (A zombie's pidfd polls as exited too, but nobody takes its pid.)
    if clinux_pidfd_exited(pidDescriptor.number) != 0, stat.state != "Z" {
      throw KernelError(call: "pidfd_open", subject: subject, errno: .noSuchProcess)
    }
    self.pid = pid
    startTicks = stat.startTicks
    self.pidDescriptor = pidDescriptor
    self.procDirectory = procDirectory
  }

  /// Whether the process has exited, or is on its way out. An execve does not count.
  package var hasExited: Bool {
    if clinux_pidfd_exited(pidDescriptor.number) != 0 { return true }
    do throws(KernelError) { return try stat().isExiting } catch { return true }
  }

  /// Sends `signal` to the process.
  package func send(signal: CInt) throws(KernelError) {
    _ = try invoke("pidfd_send_signal", on: "pid \(pid)") {
      clinux_pidfd_send_signal(pidDescriptor.number, signal)
    }
  }

  /// A copy of the process's descriptor `number`.
  package func copyDescriptor(_ number: CInt) throws(KernelError) -> OwnedDescriptor {
    let copy = try invoke("pidfd_getfd", on: "pid \(pid)") {
      clinux_pidfd_getfd(pidDescriptor.number, number)
    }
    return OwnedDescriptor(owning: copy)
  }

  /// Memory of the process in transparent huge pages (bytes), from `/proc/PID/smaps_rollup`.
  package func hugePageBytes() throws(KernelError) -> UInt64 {
    ProcessStatus(parsing: try read("smaps_rollup")).hugePageBytes
  }

  /// Makes one huge page of the small ones in `range` (MADV_COLLAPSE, Linux 6.1). It takes
  /// CAP_SYS_NICE and the right to look at the process.
  package func collapse(_ range: PageRange) throws(KernelError) {
    _ = try invoke("process_madvise", on: "\(hexAddress(range.start)) of pid \(pid)") {
      clinux_collapse(pidDescriptor.number, range.start, range.byteCount)
    }
  }

  /// The number of its pidfd, valid as long as this value.
  var pidDescriptorNumber: CInt { pidDescriptor.number }

  /// Whether process `other` runs in this process's address space, as a vfork child does until it
  /// calls execve.
  ///
  /// - Throws: `KernelError` with ENOSYS where kcmp(2) is not built in (CONFIG_KCMP).
  package func sharesMemory(with other: Int32) throws(KernelError) -> Bool {
    try invoke("kcmp", on: "pids \(pid) and \(other)") { clinux_compare_memory(pid, other) } == 0
  }

  /// Whether `descriptor` of this process of ours is open in process `other` under `number`.
  ///
  /// - Throws: `KernelError` with EBADF if `other` has no such number, or with ENOSYS where kcmp(2)
  ///   is not built in (CONFIG_KCMP).
  package static func isOpen(
    _ descriptor: borrowing OwnedDescriptor, in other: Int32, as number: CInt
  ) throws(KernelError) -> Bool {
    let own = descriptor.number
    return try invoke("kcmp", on: "pid \(other)") {
      clinux_compare_file(getpid(), other, own, number)
    } == 0
  }

  /// Soft and hard RLIMIT_NOFILE of the process.
  package func descriptorLimit() throws(KernelError) -> DescriptorLimit {
    var old: [UInt64] = [0, 0]
    _ = try invoke("prlimit", on: "pid \(pid)") { clinux_descriptor_limit(pid, nil, &old) }
    return DescriptorLimit(soft: old[0], hard: old[1])
  }

  /// Sets the process's RLIMIT_NOFILE.
  package func setDescriptorLimit(_ limit: DescriptorLimit) throws(KernelError) {
    var old: [UInt64] = [0, 0]
    let wanted = [limit.soft, limit.hard]
    _ = try invoke("prlimit", on: "pid \(pid)") { clinux_descriptor_limit(pid, wanted, &old) }
  }

  /// A process's RLIMIT_NOFILE.
  package struct DescriptorLimit: Sendable, Equatable {
    package var soft: UInt64
    package var hard: UInt64

    /// A pair of limits.
    package init(soft: UInt64, hard: UInt64) {
      self.soft = soft
      self.hard = hard
    }
  }

  /// The whole of `/proc/PID/name`.
  package func read(_ name: String) throws(KernelError) -> [UInt8] {
    try Self.read(name, in: procDirectory)
  }

  /// Opens `/proc/PID/name`.
  package func open(_ name: String, writable: Bool = false) throws(KernelError) -> File {
    let path = procDirectory.join(name)
    let flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC
    let number = try invoke("open", on: path) {
      clinux_openat(procDirectory.descriptor.number, name, flags, 0)
    }
    return File(OwnedDescriptor(owning: number), path: path)
  }

  /// What the link `/proc/PID/name` points at.
  package func link(_ name: String) throws(KernelError) -> String {
    try procDirectory.readSymlink(name)
  }

  /// The names in the directory `/proc/PID/name`.
  package func names(in name: String) throws(KernelError) -> [String] {
    try procDirectory.directory(name).names()
  }

  /// `/proc/PID/stat` now.
  package func stat() throws(KernelError) -> ProcessStat {
    try ProcessStat(parsing: try read("stat"))
  }

  /// `/proc/PID/status` now.
  package func status() throws(KernelError) -> ProcessStatus {
    ProcessStatus(parsing: try read("status"))
  }

  /// The VMAs now, ascending. Empty once the address space is gone.
  package func maps() throws(KernelError) -> [MapsEntry] {
    MapsEntry.parse(try read("maps"))
  }

  /// Ids of the threads now, ascending.
  package func threadIDs() throws(KernelError) -> [Int32] {
    try names(in: "task").compactMap { Int32($0) }.sorted()
  }

  private static func read(_ name: String, in directory: borrowing Directory) throws(KernelError)
    -> [UInt8]
  {
    let path = directory.join(name)
    let number = try invoke("open", on: path) {
      clinux_openat(directory.descriptor.number, name, O_RDONLY | O_CLOEXEC, 0)
    }
    return try readToEnd(OwnedDescriptor(owning: number), path: path)
  }
}

/// Reads a file whose length `/proc` does not tell.
package func readToEnd(_ descriptor: borrowing OwnedDescriptor, path: String) throws(KernelError)
  -> [UInt8]
{
  let number = descriptor.number
  var bytes: [UInt8] = []
  var block = [UInt8](repeating: 0, count: 64 * 1024)
  while true {
    let count = try invoke("read", on: path) { clinux_read(number, &block, block.count) }
    if count == 0 { return bytes }
    bytes.append(contentsOf: block[..<count])
  }
}
