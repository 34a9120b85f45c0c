internal import Glibc
internal import Kernel
internal import SystemPackage

/// What memdump itself may do.
struct PrivilegeChecks: Sendable {
  /// CAP_SYS_PTRACE (capability.h).
  private static let tracing: UInt64 = 1 << 19
  /// CAP_DAC_OVERRIDE.
  private static let overriding: UInt64 = 1 << 1
  /// CAP_SYS_ADMIN.
  private static let administration: UInt64 = 1 << 21

  private let capabilities: UInt64
  private let isFiltered: Bool
  /// Yama's `ptrace_scope`; 0 where Yama is not built in.
  let ptraceScope: Int

  /// Looks at the thread that calls.
  init() {
    let status = try? ThisThread.status()
    capabilities = status?.effectiveCapabilities ?? 0
    isFiltered = status.map { $0.seccompMode != 0 } ?? false
    ptraceScope = Self.readPtraceScope()
  }

  /// CAP_SYS_PTRACE: the right to trace other users' processes.
  var mayTraceOthers: Bool { capabilities & Self.tracing != 0 }

  /// Whether others' files can be opened: `mem` and `pagemap` under `/proc/PID` are their owner's.
  var mayOpenOthersFiles: Bool { capabilities & Self.overriding != 0 }

  /// What it takes to dump another user's process.
  static let othersRemedy = "run memdump as root or with CAP_SYS_PTRACE and CAP_DAC_OVERRIDE"

  /// Whether PTRACE_O_SUSPEND_SECCOMP is granted: the kernel asks for CAP_SYS_ADMIN, and that the
  /// tracer is under no filter itself (ptrace(2)).
  var maySuspendSeccomp: Bool { capabilities & Self.administration != 0 && !isFiltered }

  /// Every item, in the report's order.
  func run() -> [GroundFinding] { [ptrace(), mapFiles(), suspendSeccomp()] }

  private func ptrace() -> GroundFinding {
    let (id, title) = ("permission.ptrace", "the right to trace processes")
    if ptraceScope >= 3 {
      return .forbidden(
        id, title, "kernel.yama.ptrace_scope is \(ptraceScope): nobody may trace anything",
        remedy: "set it to 2 or less at boot; it cannot be lowered in a running system")
    }
    if mayTraceOthers {
      if mayOpenOthersFiles {
        return .ok(id, title, "CAP_SYS_PTRACE and CAP_DAC_OVERRIDE are held")
      }
      return .warning(
        id, title, "no CAP_DAC_OVERRIDE: only processes of your own can be dumped",
        remedy: Self.othersRemedy)
    }
    let remedy = Self.othersRemedy
    switch ptraceScope {
    case 0:
      return .warning(
        id, title, "no CAP_SYS_PTRACE: only processes of your own can be dumped", remedy: remedy)
    case 1:
      return .warning(
        id, title,
        "no CAP_SYS_PTRACE and kernel.yama.ptrace_scope is 1: only memdump's own descendants, and "
          + "processes that allow it, can be dumped", remedy: remedy)
    default:
      return .forbidden(
        id, title, "no CAP_SYS_PTRACE and kernel.yama.ptrace_scope is \(ptraceScope)",
        remedy: remedy)
    }
  }

  /// Opens one of its own mapped files through `map_files`, as a dump does the target's.
  private func mapFiles() -> GroundFinding {
    let (id, title) = ("permission.map-files", "the right to open mapped objects")
    do throws(KernelError) {
      let own = try TargetProcess(pid: getpid())
      let mapped = try ThisThread.maps().first { $0.inode != 0 && $0.path.hasPrefix("/") }
      guard let mapped else { return .ok(id, title, "not tried: memdump maps no file") }
      let name = String(mapped.range.start, radix: 16) + "-" + String(mapped.range.end, radix: 16)
      _ = try own.open("map_files/\(name)")
      return .ok(id, title, "/proc/PID/map_files can be opened")
    } catch {
      return .warning(
        id, title, "\(error): processes that map shared memory cannot be dumped",
        remedy: "run memdump as root or with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN")
    }
  }

  private func suspendSeccomp() -> GroundFinding {
    let (id, title) = ("permission.suspend-seccomp", "the right to suspend seccomp filters")
    if maySuspendSeccomp { return .ok(id, title, "CAP_SYS_ADMIN is held") }
    let why = isFiltered ? "memdump runs under a seccomp filter itself" : "no CAP_SYS_ADMIN"
    return .warning(
      id, title, "\(why): processes under a seccomp filter cannot be dumped",
      remedy: "run memdump as root, outside of a container's seccomp filter")
  }

  private static func readPtraceScope() -> Int {
    do throws(KernelError) {
      let yama = try Directory.open("/proc/sys/kernel/yama", followSymlink: true)
      let file = try yama.openFile("ptrace_scope")
      let bytes = try readToEnd(file, path: yama.join("ptrace_scope"))
      return Int(String(decoding: bytes.prefix { $0 != 0x0a }, as: UTF8.self)) ?? 0
    } catch { return 0 }
  }
}
