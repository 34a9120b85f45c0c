internal import Kernel
internal import SystemPackage
internal import Tracee

/// What the dump did to the target: looked at before it begins, and when tracking is over.
struct TargetWatch: ~Copyable {
  private let process: TargetProcess
  private let hugePages: HugePages
  private let minorFaults: UInt64

  /// Looks at the target that `options` name.
  init(_ options: PredumpOptions, _ look: MemoryLook?) throws(PredumpError) {
    let pid = options.pid
    do throws(KernelError) {
      self = try Self(
        pid, remembersPlaces: options.restoreHugePagesNanoseconds != nil,
        sendsSignals: options.leave != .running || options.hooks.onFrozen != nil,
        look?.hugePageBytes)
    } catch {
      if error.call == "pidfd_send_signal", error.errno == .notPermitted {
        throw .permission(
          "\(error): to stop or to kill another user's process, as --leave and --on-frozen do, "
            + "takes CAP_KILL")
      }
      if error.call == "process_madvise" {
        throw .permission("\(error): to make huge pages, as --restore-thp does, takes CAP_SYS_NICE")
      }
      switch error.errno {
      case .noSuchProcess, .noSuchFileOrDirectory:
        throw .targetGone(pid: pid, how: .neverFound)
      case .permissionDenied, .notPermitted:
        throw .permission("\(error); \(PrivilegeChecks.othersRemedy)")
      default: throw .kernel(error)
      }
    }
  }

  private init(
    _ pid: Int32, remembersPlaces: Bool, sendsSignals: Bool, _ hugePageBytes: UInt64?
  ) throws(KernelError) {
    let process = try TargetProcess(pid: pid)
    // Whether that is permitted: better to know now than when all is done.
    if sendsSignals { try process.send(signal: 0) }
    let faults = try process.stat().minorFaults
    if remembersPlaces { try Self.checkCollapse(process) }
    let hugePages = try HugePages(
      of: pid, remembersPlaces: remembersPlaces, known: hugePageBytes)
    minorFaults = faults
    self.hugePages = hugePages
    self.process = process
  }

  private static func checkCollapse(_ process: borrowing TargetProcess) throws(KernelError) {
    do throws(KernelError) { try process.collapse(PageRange(start: 0, pageCount: 0)) } catch {
      // A kernel that makes none at all leaves the pages small.
      if error.errno == .notPermitted { throw error }
    }
  }

  /// Enters what became of the target into the summary, and gives its huge pages back if that was
  /// asked for.
  consuming func finish(
    _ summary: inout PredumpSummary, _ options: PredumpOptions, _ cancellation: Cancellation
  ) {
    if process.hasExited { return }
    if let now = try? process.stat().minorFaults, now >= minorFaults {
      summary.targetMinorFaults = now - minorFaults
    }
    summary.hugePages = hugePages.finish(budgetNanoseconds: options.restoreHugePagesNanoseconds) {
      cancellation.isCancelled
    }
  }
}
