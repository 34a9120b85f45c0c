internal import Glibc
internal import Images
internal import Kernel
internal import SystemPackage

/// Whether a process can be dumped, from what `/proc` tells of it.
struct TargetChecks: Sendable {
  let pid: Int32
  let privileges: PrivilegeChecks

  /// What was found.
  struct Outcome: Sendable {
    var findings: [GroundFinding] = []
    /// The target's resident memory; 0 if it is not known.
    var residentBytes: UInt64 = 0
    /// Its VMAs; nil if the checks did not come so far.
    var memory: MemoryLook?

    var hasFailed: Bool { findings.contains { $0.failure != nil } }
  }

  private typealias Label = (id: String, title: String)
  private static let exists: Label = ("target.exists", "the process")
  private static let own: Label = ("target.self", "not memdump itself")

  /// Every item, in the report's order.
  func run() -> Outcome {
    var outcome = Outcome()
    if pid == getpid() {
      outcome.findings.append(.ok(Self.exists.id, Self.exists.title, "process \(pid) exists"))
      outcome.findings.append(
        .unsuitable(
          Self.own.id, Self.own.title, "it is memdump itself", remedy: "give another --pid",
          pid: pid))
      return outcome
    }
    do throws(KernelError) {
      let process = try takeHold()
      let status = try process.status()
      outcome.findings.append(
        .ok(Self.exists.id, Self.exists.title, "process \(pid) (\(status.name)) exists"))
      outcome.findings.append(.ok(Self.own.id, Self.own.title, "it is not"))
      outcome.residentBytes = status.residentBytes
      do throws(KernelError) { try look(at: process, status, &outcome) } catch {
        outcome.findings.append(interrupted(by: error, hasExited: process.hasExited))
      }
    } catch {
      outcome.findings.append(notFound(error))
    }
    return outcome
  }

  private func look(
    at process: borrowing TargetProcess, _ status: ProcessStatus, _ outcome: inout Outcome
  ) throws(KernelError) {
    outcome.findings.append(try TargetKind.check(process))
    if outcome.hasFailed { return }
    outcome.findings.append(try tracer(process))
    outcome.findings.append(try permission(process, status))
    let mayRead = !outcome.hasFailed
    let leader = try leader(process)
    outcome.findings.append(leader)
    if !mayRead || leader.failure != nil { return }
    let memory = try MemoryLook(at: process)
    outcome.memory = memory
    outcome.findings.append(try TargetUserfaults.check(process, memory.flags))
    outcome.findings.append(
      .ok(
        "target.memory", "memory",
        "\(byteText(outcome.residentBytes)) resident, \(memory.maps.count) VMAs, "
          + "\(try process.threadIDs().count) threads"))
  }

  private func takeHold() throws(KernelError) -> TargetProcess {
    do throws(KernelError) { return try TargetProcess(pid: pid) } catch {
      // Between the pidfd and `/proc` it may have ended, and its pid be another's: once more.
      return try TargetProcess(pid: pid)
    }
  }

  private func notFound(_ error: KernelError) -> GroundFinding {
    let (id, title) = Self.exists
    if error.call != "pidfd_open" {
      return .forbidden(
        id, title, "process \(pid) exists, but /proc does not show it: \(error)",
        remedy: "run memdump as root (/proc is mounted with hidepid, or of another namespace)")
    }
    if let group = threadGroup(), group != pid {
      return .unsuitable(
        id, title, "\(pid) is a thread of process \(group)", remedy: "give --pid \(group)",
        pid: pid)
    }
    return .missing(
      id, title, "there is no process \(pid)", remedy: "",
      failure: .targetGone(pid: pid, how: .neverFound))
  }

  /// The process that `pid` is a thread of. `/proc` shows threads to those who ask for them.
  private func threadGroup() -> Int32? {
    do throws(KernelError) {
      let directory = try Directory.open("/proc/\(pid)", followSymlink: false)
      let file = try directory.openFile("status")
      let bytes = try readToEnd(file, path: directory.join("status"))
      return ProcessStatus(parsing: bytes).threadGroup
    } catch { return nil }
  }

  /// The process went, or a part of `/proc` is closed to us, in the midst of the checks.
  private func interrupted(by error: KernelError, hasExited: Bool) -> GroundFinding {
    let (id, title) = ("target.permission", "the right to read and trace the process")
    if error.isPermission, !hasExited {
      return .forbidden(id, title, "\(error)", remedy: PrivilegeChecks.othersRemedy)
    }
    return .missing(
      "target.memory", "memory", "the process ended during the checks", remedy: "",
      failure: .targetGone(pid: pid, how: hasExited ? .exited : .replaced))
  }

  private func tracer(_ process: borrowing TargetProcess) throws(KernelError) -> GroundFinding {
    let (id, title) = ("target.tracer", "not traced by anybody")
    // Every thread: a debugger may hold a single one.
    for tid in try process.threadIDs() {
      let bytes: [UInt8]
      do throws(KernelError) { bytes = try process.read("task/\(tid)/status") } catch { continue }
      let tracer = ProcessStatus(parsing: bytes).tracer
      if tracer == 0 { continue }
      let status = try? TargetProcess(pid: tracer).status()
      let name = status.map { " (\($0.name))" } ?? ""
      return .unsuitable(
        id, title, "it is being traced by process \(tracer)\(name)",
        remedy: "end that debugger or strace and try again", pid: pid)
    }
    return .ok(id, title, "nobody traces it")
  }

  /// Opens for writing what an attach opens. The kernel asks for the same right as for ptrace.
  private func permission(_ process: borrowing TargetProcess, _ status: ProcessStatus)
    throws(KernelError) -> GroundFinding
  {
    let (id, title) = ("target.permission", "the right to read and trace the process")
    do throws(KernelError) {
      // A leader that has ended has no memory to open; its threads have.
      let tid = try process.liveThread() ?? pid
      _ = try process.open("task/\(tid)/mem", writable: true)
      _ = try process.open("task/\(tid)/pagemap")
      _ = try process.read("task/\(tid)/maps")
    } catch {
      if !error.isPermission { throw error }
      let owner = status.userIDs.first.map { "it belongs to user \($0)" } ?? "it is not yours"
      let why: String =
        if privileges.mayTraceOthers && !privileges.mayOpenOthersFiles {
          "\(owner), and CAP_DAC_OVERRIDE is not held"
        } else if privileges.mayTraceOthers {
          "a security module or user namespace protects it"
        } else if privileges.ptraceScope > 0 {
          "\(owner), and kernel.yama.ptrace_scope is \(privileges.ptraceScope)"
        } else {
          owner
        }
      return .forbidden(
        id, title, "\(error): \(why)", remedy: PrivilegeChecks.othersRemedy)
    }
    if let object = try sharedObject(process), !mayOpen(object, of: process) {
      return .forbidden(
        id, title,
        "it maps shared memory at \(hexAddress(object.start)), which memdump may not open",
        remedy: "run memdump as root or with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN")
    }
    if status.seccompMode != 0, !privileges.maySuspendSeccomp {
      return .forbidden(
        id, title, "it runs under a seccomp filter, which memdump may not suspend",
        remedy: "run memdump as root or with CAP_SYS_ADMIN, outside of any seccomp filter")
    }
    return .ok(id, title, "its memory can be opened")
  }

  /// A shared memory object that the process maps; nil if it maps none.
  private func sharedObject(_ process: borrowing TargetProcess) throws(KernelError) -> PageRange? {
    let classifier = VMAClassifier()
    return classifier.classify(try process.maps(), flags: [:]).first {
      $0.treatment == .comparedInFreeze
    }?.range
  }

  /// One that is gone meanwhile counts as open.
  private func mayOpen(_ range: PageRange, of process: borrowing TargetProcess) -> Bool {
    do throws(KernelError) {
      _ = try process.open(SharedObjects.linkName(of: range))
      return true
    } catch { return !error.isPermission }
  }

  private func leader(_ process: borrowing TargetProcess) throws(KernelError) -> GroundFinding {
    let (id, title) = ("target.leader", "its first thread lives")
    if !["Z", "X"].contains(try process.stat().state) { return .ok(id, title, "it does") }
    return .unsuitable(
      id, title,
      "its first thread has ended while others run on: the kernel shows no memory of it under "
        + "/proc/\(pid), and CRIU cannot restore it", remedy: "", pid: pid)
  }
}

extension TargetProcess {
  /// A thread that has not ended; nil if there is none.
  func liveThread() throws(KernelError) -> Int32? {
    for tid in try threadIDs() {
      do throws(KernelError) {
        let stat = try ProcessStat(parsing: try read("task/\(tid)/stat"))
        if !["Z", "X"].contains(stat.state) { return tid }
      } catch { continue }
    }
    return nil
  }
}
