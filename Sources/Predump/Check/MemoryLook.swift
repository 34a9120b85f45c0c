internal import Kernel

/// What the checks learn of a process's memory from `/proc/PID/smaps`. To read that walks all of its
/// page tables (some 30 ms a GiB), so that nobody does it again.
struct MemoryLook: Sendable {
  /// Whose memory it is, with the pid.
  let startTicks: UInt64
  /// The VMAs.
  let maps: [MapsEntry]
  /// Their flags.
  let flags: [PageRange: VMAFlags]
  /// Anonymous memory in transparent huge pages (bytes).
  let hugePageBytes: UInt64

  init(at process: borrowing TargetProcess) throws(KernelError) {
    startTicks = process.startTicks
    maps = try process.maps()
    var bytes: UInt64 = 0
    flags = VMAFlags.parse(smaps: try process.read("smaps"), hugePageBytes: &bytes)
    hugePageBytes = bytes
  }
}
