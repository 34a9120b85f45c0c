internal import Glibc
internal import Kernel

extension MemoryOmission {
  /// What CRIU needs besides (descriptors), and what the process may grow by meanwhile.
  private static let spareDescriptors: UInt64 = 1000
  private static let pipeBytes: UInt64 = 1 << 20

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
