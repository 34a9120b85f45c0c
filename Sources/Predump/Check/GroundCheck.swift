internal import Kernel

/// Looks, without touching the target, whether a dump can work here.
public enum GroundCheck {
  /// Checks the kernel and memdump's privileges; with `pid` also the target, with
  /// `imagesDirectory` also the space there.
  ///
  /// The kernel is asked by calling it, with memory of memdump's own. Of the target only `/proc` is
  /// read: it is not stopped, and no file is created. Items have stable ids and come in a stable
  /// order; those of a target end with the first that makes the others pointless.
  public static func run(pid: Int32?, imagesDirectory: String?) -> CheckReport {
    look(pid: pid, imagesDirectory: imagesDirectory).report
  }

  /// As `run`, with what was learnt of the target's memory.
  static func look(pid: Int32?, imagesDirectory: String?)
    -> (report: CheckReport, memory: MemoryLook?)
  {
    let privileges = PrivilegeChecks()
    var findings = KernelChecks.run() + privileges.run()
    var residentBytes: UInt64 = 0
    var memory: MemoryLook?
    if let pid {
      let target = TargetChecks(pid: pid, privileges: privileges).run()
      findings += target.findings
      residentBytes = target.residentBytes
      memory = target.memory
    }
    if let imagesDirectory {
      findings.append(DestinationCheck.run(path: imagesDirectory, residentBytes: residentBytes))
    }
    let report = CheckReport(
      items: findings.map(\.item), failure: findings.compactMap(\.failure).first)
    return (report, memory)
  }
}
