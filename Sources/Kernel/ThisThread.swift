internal import CLinux
internal import Glibc

/// What `/proc` tells of the thread that calls. Of the thread and not of the process: the first
/// thread may have ended (dispatchMain does that), and then shows no memory; and credentials are
/// each thread's own.
package enum ThisThread {
  private static let path = "/proc/thread-self"

  /// Lets the calling thread run before others (nice -20), where the user may do that.
  package static func preferIfPermitted() { _ = clinux_prefer_this_thread() }

  /// The calling thread's nice value.
  package static var nice: Int32 { clinux_nice() }

  /// Sets the calling thread's nice value; threads that it starts inherit it. A lower value than
  /// now takes CAP_SYS_NICE.
  package static func setNice(_ value: Int32) throws(KernelError) {
    _ = try invoke("setpriority", on: "nice \(value)") { clinux_set_nice(value) }
  }

  /// Lets the calling thread run only while nobody else wants its processor (SCHED_IDLE), or ends
  /// that, which takes CAP_SYS_NICE. (sched(7))
  package static func setIdle(_ isIdle: Bool) throws(KernelError) {
    _ = try invoke("sched_setscheduler", on: "this thread") { clinux_set_idle(isIdle ? 1 : 0) }
  }

  /// Sets how the calling thread's reads and writes stand against those of others; threads that it
  /// starts inherit it.
  package static func setIOPriority(_ priority: IOPriority) throws(KernelError) {
    let (group, level): (CInt, CInt) =
      switch priority {
      case .bestEffort(let level): (2, level)
      case .idle: (3, 0)
      }
    _ = try invoke("ioprio_set", on: "\(priority)") { clinux_set_io_priority(group, level) }
  }

  /// Gives up all capabilities of the calling thread but these; threads that it starts inherit what
  /// is left. For good: there is no way back.
  package static func keepCapabilities(_ kept: Capabilities) throws(KernelError) {
    _ = try invoke("capset", on: "this thread") { clinux_keep_capabilities(kept.rawValue) }
  }

  /// Processor time that the calling thread has used (ns): what work costs, whoever else runs.
  package static var processorNanoseconds: UInt64 { clinux_thread_cpu_ns() }

  /// How often the calling thread has given up the processor to wait for something.
  package static var waitCount: UInt64 { clinux_thread_waits() }

  /// Opens `/proc/thread-self/name`.
  package static func open(_ name: String, writable: Bool = false) throws(KernelError) -> File {
    let path = "\(path)/\(name)"
    let flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC
    let number = try invoke("open", on: path) { clinux_openat(AT_FDCWD, path, flags, 0) }
    return File(OwnedDescriptor(owning: number), path: path)
  }

  /// `/proc/thread-self/status` now.
  package static func status() throws(KernelError) -> ProcessStatus {
    let file = try open("status")
    return ProcessStatus(parsing: try readToEnd(file.descriptor, path: file.path))
  }

  /// The VMAs of this process now, ascending.
  package static func maps() throws(KernelError) -> [MapsEntry] {
    let file = try open("maps")
    return MapsEntry.parse(try readToEnd(file.descriptor, path: file.path))
  }
}
