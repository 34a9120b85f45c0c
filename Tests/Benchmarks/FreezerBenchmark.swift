internal import Glibc
internal import Kernel
internal import Tracee

/// The two ways to make all threads of a process stand still, in turn.
enum FreezerBenchmark {
  struct Result: Encodable {
    let benchmark = "freeze"
    let threads: Int
    /// From the begin until all threads stand still (ns).
    let ptraceFreezeNs: Double
    let cgroupFreezeNs: Double
    /// From then until all were told to go on (ns).
    let ptraceThawNs: Double
    let cgroupThawNs: Double
    let ptraceSamples: Samples
    let cgroupSamples: Samples
  }

  static func run(_ pid: Int32, _ cgroup: String, _ repetitions: Int) throws -> Result {
    let target = try TargetProcess(pid: pid)
    try write("\(pid)", to: "\(cgroup)/cgroup.procs")
    var (ptrace, ptraceThaw, freezer, freezerThaw) = (Samples(), Samples(), Samples(), Samples())
    var threads = 0
    for _ in 0..<repetitions {
      let frozen = try FrozenProcess(freezing: target, timeoutNanoseconds: 10_000_000_000)
      threads = frozen.threadCount
      ptrace.add(Double(frozen.freezingNanoseconds))
      let thaw = MonotonicClock.now
      _ = try frozen.thaw(leaving: .running)
      ptraceThaw.add(Double(MonotonicClock.now - thaw))
      MonotonicClock.pause(nanoseconds: 20_000_000)

      let began = MonotonicClock.now
      try write("1", to: "\(cgroup)/cgroup.freeze")
      while try !read("\(cgroup)/cgroup.events").contains("frozen 1") { sched_yield() }
      let stopped = MonotonicClock.now
      try write("0", to: "\(cgroup)/cgroup.freeze")
      freezerThaw.add(Double(MonotonicClock.now - stopped))
      freezer.add(Double(stopped - began))
      MonotonicClock.pause(nanoseconds: 20_000_000)
    }
    return Result(
      threads: threads, ptraceFreezeNs: ptrace.median, cgroupFreezeNs: freezer.median,
      ptraceThawNs: ptraceThaw.median, cgroupThawNs: freezerThaw.median, ptraceSamples: ptrace,
      cgroupSamples: freezer)
  }

  private static func write(_ text: String, to path: String) throws {
    let file = open(path, O_WRONLY | O_CLOEXEC)
    defer { close(file) }
    let bytes = Array(text.utf8)
    guard file >= 0, Glibc.write(file, bytes, bytes.count) == bytes.count else {
      throw BenchmarkFailure(description: "\(path) cannot be written (errno \(errno))")
    }
  }

  private static func read(_ path: String) throws -> String {
    let file = try File.open(path)
    return String(decoding: try readToEnd(file.descriptor, path: path), as: UTF8.self)
  }
}
