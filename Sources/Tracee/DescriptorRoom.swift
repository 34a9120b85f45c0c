internal import Kernel

/// Room for a descriptor in a process that has none left below its RLIMIT_NOFILE.
struct DescriptorRoom {
  private static let spare: UInt64 = 4

  private let before: TargetProcess.DescriptorLimit
  private let guardian: ProcessGuardian

  /// Raises the limit; the old one is to be given back. No thread of the target must run meanwhile:
  /// it would see it. If memdump is killed in between, `guardian` gives it back a moment later.
  ///
  /// Nil where this is not permitted. Beyond the hard limit, or for another user's process, it takes
  /// CAP_SYS_RESOURCE.
  init?(in target: borrowing TargetProcess, guardian: ProcessGuardian) {
    do throws(KernelError) {
      let used = Set(try target.names(in: "fd").compactMap { UInt64($0) })
      var free: UInt64 = 0
      while used.contains(free) { free += 1 }
      let before = try target.descriptorLimit()
      let soft = max(before.soft, free + Self.spare)
      try guardian.setDescriptorLimit(before, of: target.pid)
      try target.setDescriptorLimit(.init(soft: soft, hard: max(before.hard, soft)))
      (self.before, self.guardian) = (before, guardian)
    } catch {
      try? guardian.setDescriptorLimit(nil, of: target.pid)
      return nil
    }
  }

  /// Puts the limit back.
  func giveBack(to target: borrowing TargetProcess) {
    // A process that ended needs no limit; nothing else refuses what it allowed a moment ago.
    try? target.setDescriptorLimit(before)
    try? guardian.setDescriptorLimit(nil, of: target.pid)
  }
}
