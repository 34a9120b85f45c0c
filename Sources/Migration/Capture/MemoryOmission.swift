internal import Glibc
internal import Kernel
internal import Predump

extension MemoryOmission {
  /// What CRIU needs besides (descriptors), and what the process may grow by meanwhile.
  private static let spareDescriptors: UInt64 = 1000
  private static let pipeBytes: UInt64 = 1 << 20

  /// `softDirty` in place of `automatic`, where it can be and is in nobody's way. What is looked at takes
  /// its time: better before the freeze.
  ///
  /// - Throws: `.unsupportedKernel` if it is asked for where the kernel has none.
  func settled(for pid: Int32) throws -> MemoryOmission {
    try settled(isTracked: try SoftDirty.isTracked()) {
      // CRIU takes the marks off all that it dumps.
      let all = [pid] + (try ProcessTree.descendants(of: pid).map(\.pid))
      return all.allSatisfy { (try? TargetProcess(pid: $0).lendsSoftDirty()) ?? true }
    }
  }

  /// As above.
  ///
  /// - Parameters:
  ///   - isTracked: whether the kernel has soft-dirty tracking.
  ///   - isFree: whether nobody else uses it on these processes.
  func settled(isTracked: Bool, isFree: () throws -> Bool) throws -> MemoryOmission {
    switch self {
    case .lazy, .stream: return self
    case .softDirty:
      if isTracked { return self }
      throw PredumpError.unsupportedKernel(
        "this kernel has no soft-dirty tracking (CONFIG_MEM_SOFT_DIRTY), by which criu is to leave "
          + "memory out: choose --omit lazy, stream or auto")
    case .automatic: return try isTracked && isFree() ? .softDirty : self
    }
  }

  /// What is to be done for process `pid`.
  ///
  /// - Parameter includesDescendants: whether the rounds have the memory of its descendants.
  func chosen(for pid: Int32, includesDescendants: Bool) throws -> MemoryOmission {
    guard self == .automatic else { return self }
    let others = try ProcessTree.descendants(of: pid)
    // CRIU would leave out the memory of processes that no round has.
    guard others.isEmpty || includesDescendants else { return .stream }
    var bytes: UInt64 = 0
    for process in [pid] + others.map(\.pid) {
      // One that has ended meanwhile has no memory.
      guard let status = try? TargetProcess(pid: process).status() else { continue }
      bytes += status.residentBytes
    }
    // CRIU holds all pages in pipes, of 1 MiB where it is not privileged; two descriptors each.
    let wanted = bytes / Self.pipeBytes * 5 / 2 + Self.spareDescriptors
    return wanted <= (try descriptorLimit()) ? .lazy : .stream
  }

  /// How many descriptors a CRIU of ours may have open: it takes all that it can.
  private func descriptorLimit() throws -> UInt64 {
    let status = try ThisThread.status()
    if Capabilities(rawValue: status.effectiveCapabilities).contains(.raiseLimits) {
      let file = try File.open("/proc/sys/fs/nr_open")
      let text = try readToEnd(file.descriptor, path: file.path)
      return UInt64(String(decoding: text, as: UTF8.self).prefix { $0.isNumber }) ?? 0
    }
    return try TargetProcess(pid: getpid()).descriptorLimit().hard
  }
}
