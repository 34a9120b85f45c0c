internal import CLinux
internal import Glibc

/// What `/proc` tells of the thread that calls. Of the thread and not of the process: the first
/// thread may have ended (dispatchMain does that), and then shows no memory; and credentials are
/// each thread's own.
package enum ThisThread {
  private static let path = "/proc/thread-self"

  /// Lets the calling thread run before others (nice -20), where the user may do that.
  package static func preferIfPermitted() { _ = clinux_prefer_this_thread() }

  /// Processor time that the calling thread has used (ns): what work costs, whoever else runs.
  package static var processorNanoseconds: UInt64 { clinux_thread_cpu_ns() }

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
