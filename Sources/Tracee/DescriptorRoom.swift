internal import Kernel

/// Room for a descriptor in a process that has none left below its RLIMIT_NOFILE.
enum DescriptorRoom {
  private static let spare: UInt64 = 4

  /// Raises the limit; the old one is to be given back. No thread of the target must run meanwhile:
  /// it would see it. If memdump is killed in between, the limit stays raised by a few descriptors.
  ///
  /// - Returns: nil where this is not permitted. Beyond the hard limit, or for another user's
  ///   process, it takes CAP_SYS_RESOURCE.
  static func make(in target: borrowing TargetProcess) -> TargetProcess.DescriptorLimit? {
    do throws(KernelError) {
      let used = Set(try target.names(in: "fd").compactMap { UInt64($0) })
      var free: UInt64 = 0
      while used.contains(free) { free += 1 }
      let before = try target.descriptorLimit()
      let soft = max(before.soft, free + spare)
      try target.setDescriptorLimit(.init(soft: soft, hard: max(before.hard, soft)))
      return before
    } catch { return nil }
  }

  /// Puts the limit back.
  static func giveBack(
    _ limit: TargetProcess.DescriptorLimit, to target: borrowing TargetProcess
  ) {
    // A process that ended needs no limit; nothing else refuses what it allowed a moment ago.
    try? target.setDescriptorLimit(limit)
  }
}
