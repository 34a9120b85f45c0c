package import Kernel
internal import SystemPackage

/// Why a process could not be stopped or made to run a call. In every case it runs on unharmed.
package enum TraceError: Error, Sendable, CustomStringConvertible {
  /// A system call failed.
  case kernel(KernelError)
  /// The thread or process ended.
  case gone(pid: Int32)
  /// Another tracer holds it; 0 if the kernel does not tell which.
  case alreadyTraced(pid: Int32, tracer: Int32)
  /// A thread did not come to a stop in time.
  case notStopping(tid: Int32, milliseconds: UInt64)
  /// No thread was in a state in which a call may be injected.
  case noSuitableThread(pid: Int32, reason: String)
  /// The program text lacks what the injected call runs on.
  case noGadget(pid: Int32)
  /// The process has no descriptor free, and its limit cannot be raised for a moment.
  case noDescriptorFree(pid: Int32)
  /// The injected call returned an error.
  case remoteCall(pid: Int32, name: String, errno: Int32)

  package var description: String {
    switch self {
    case .kernel(let error): return error.description
    case .gone(let pid): return "process \(pid) has ended"
    case .alreadyTraced(let pid, let tracer):
      let who = tracer == 0 ? "another tracer" : "process \(tracer)"
      return "process \(pid) is being traced by \(who); end that debugger or strace and try again"
    case .notStopping(let tid, let milliseconds):
      return "thread \(tid) did not stop within \(milliseconds) ms (waiting in the kernel?); "
        + "try again later"
    case .noSuitableThread(let pid, let reason):
      return "no thread of process \(pid) could take the injected call: \(reason); try again"
    case .noGadget(let pid):
      return "process \(pid) has no libc-like signal return code (rt_sigreturn) in its text, "
        + "without which memdump's own death could harm it"
    case .noDescriptorFree(let pid):
      return "process \(pid) has no descriptor free below its limit (RLIMIT_NOFILE), and to raise "
        + "that for a moment takes CAP_SYS_RESOURCE; close one there, or run memdump with it"
    case .remoteCall(let pid, let name, let errno):
      return "\(name) inside process \(pid): \(Errno(rawValue: errno).description)"
    }
  }
}
