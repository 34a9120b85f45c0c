internal import Glibc
internal import Kernel

/// Processes that stand still by SIGSTOP for a migration, of which no process id is taken for
/// another's.
final class HeldProcesses: Sendable {
  private final class Entry: Sendable {
    let process: TargetProcess
    init(_ process: consuming TargetProcess) { self.process = process }
  }

  /// How a process is called in a note.
  struct Name: Equatable {
    let pid: Int32
    let startTicks: UInt64

    init(pid: Int32, startTicks: UInt64) { (self.pid, self.startTicks) = (pid, startTicks) }

    /// The name of a process that is there.
    init(of pid: Int32) throws(KernelError) {
      self.init(pid: pid, startTicks: try TargetProcess(pid: pid).startTicks)
    }
  }

  private static let patienceNanoseconds: UInt64 = 10_000_000_000
  private let entries: [Entry]

  /// Takes hold of those that are there.
  init(_ pids: [Int32]) {
    entries = pids.compactMap { pid in
      guard let process = try? TargetProcess(pid: pid) else { return nil }
      return Entry(process)
    }
  }

  /// Takes hold of those that are still there.
  init(named names: [Name]) {
    entries = names.compactMap { name in
      guard let process = try? TargetProcess(pid: name.pid), process.startTicks == name.startTicks
      else { return nil }
      return Entry(process)
    }
  }

  var names: [Name] {
    entries.map { Name(pid: $0.process.pid, startTicks: $0.process.startTicks) }
  }

  /// A process that is not stopped; nil if all are, or have ended.
  func running() throws(KernelError) -> Int32? {
    for entry in entries {
      let state = try entry.process.stat().state
      if state != "T", state != "Z" { return entry.process.pid }
    }
    return nil
  }

  /// Lets them run on.
  func goOn() {
    for entry in entries { try? entry.process.send(signal: SIGCONT) }
  }

  /// Waits until nobody traces them any more.
  func awaitRelease() {
    wait { process in
      let text = (try? process.read("status")).map { String(decoding: $0, as: UTF8.self) } ?? ""
      return text.isEmpty || text.contains("TracerPid:\t0\n")
    }
  }

  /// Waits until they have ended.
  func awaitEnd() { wait { $0.hasExited } }

  /// Ends them, whatever CRIU still does with them. They are gone when it has let go of them.
  func kill() {
    for entry in entries where !entry.process.hasExited {
      try? entry.process.send(signal: SIGKILL)
    }
  }

  private func wait(until isSo: (borrowing TargetProcess) -> Bool) {
    let deadline = MonotonicClock.now + Self.patienceNanoseconds
    for entry in entries {
      while !entry.process.hasExited, !isSo(entry.process), MonotonicClock.now < deadline {
        MonotonicClock.pause(nanoseconds: 1_000_000)
      }
    }
  }
}
