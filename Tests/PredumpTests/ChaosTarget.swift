import Foundation
import Glibc
import Kernel
import TestSupport
import Testing

/// A process that looks at itself while memdump is killed over it.
final class ChaosTarget {
  /// How a run of memdump ended.
  struct Ending {
    let wasKilled: Bool
    let succeeded: Bool
    let output: String
    /// How long it was at work on the target (ns).
    let atWork: UInt64
  }

  private let workload: Workload
  private let mode: String
  private let descriptorLimit: TargetProcess.DescriptorLimit
  let pid: Int32
  /// What a death in the midst may leave: documented limits.
  enum Limit: String {
    /// A call that the kernel does not restart returned EINTR: killed between a thread's stop and
    /// the look at its registers.
    case interruption = "EINTR without a handler"
    /// An inert userfaultfd: killed between the injected call's begin and its end.
    case descriptor = "descriptors changed"
    /// RLIMIT_NOFILE was higher for a moment: killed while it was raised for the call.
    case room = "RLIMIT_NOFILE is"
    /// As before: it made use of that.
    case roomUsed = "a descriptor is free"
  }
  /// The limits that were met; the target goes on reporting them.
  private(set) var limits: Set<Limit> = []

  /// Starts the workload of this mode, with options after it.
  init(_ mode: [String]) throws {
    self.mode = mode[0]
    workload = try Workload(mode[0], Array(mode.dropFirst()))
    pid = workload.pid
    descriptorLimit = try TargetProcess(pid: pid).descriptorLimit()
  }

  func end() { workload.program.end() }

  /// Runs `memdump predump` on it, to its end or for so long (ns) after it began with the target.
  func dump(to images: String, environment: [String: String] = [:], killAfter: UInt64? = nil)
    throws -> Ending
  {
    let process = Process()
    process.executableURL = productsDirectory.appendingPathComponent("memdump")
    process.arguments = [
      "predump", "--pid", "\(pid)", "--images-dir", images, "--no-sync", "--target-downtime", "1s",
    ]
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    let errors = FileManager.default.temporaryDirectory
      .appendingPathComponent("memdump-chaos-stderr-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: errors) }
    try Data().write(to: errors)
    process.standardError = try FileHandle(forWritingTo: errors)
    process.standardOutput = FileHandle.nullDevice
    try process.run()
    // Before its directory is there it has not touched the target, and its death shows nothing.
    while access(images, F_OK) != 0, !Self.hasEnded(process.processIdentifier) {
      MonotonicClock.pause(nanoseconds: 50_000)
    }
    let began = MonotonicClock.now
    if let killAfter {
      MonotonicClock.pause(nanoseconds: killAfter)
      kill(process.processIdentifier, SIGKILL)
    }
    process.waitUntilExit()
    let wasKilled = process.terminationReason == .uncaughtSignal
    return Ending(
      wasKilled: wasKilled && process.terminationStatus == SIGKILL,
      succeeded: !wasKilled && process.terminationStatus == 0,
      output: (try? String(contentsOf: errors, encoding: .utf8)) ?? "",
      atWork: MonotonicClock.now - began)
  }

  private static func hasEnded(_ pid: Int32) -> Bool {
    var info = siginfo_t()
    return waitid(P_PID, id_t(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_signo != 0
  }

  /// Runs, untraced, untracked, with nothing of ours, and has seen nothing.
  func expectUnharmed(
    except allowed: Set<Limit> = [], _ told: String = "",
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let report = ask(mode == "stamp" ? "check" : "report")
    limits.formUnion(allowed.filter { report.contains($0.rawValue) })
    let isKnown = limits.contains { report.contains($0.rawValue) }
    #expect(
      report.hasPrefix("ok") || isKnown, "\(told): \(report)", sourceLocation: sourceLocation)
    do {
      let target = try TargetProcess(pid: pid)
      let hasLimit = eventually { (try? target.descriptorLimit()) == descriptorLimit }
      #expect(hasLimit, "\(told): RLIMIT_NOFILE stays changed", sourceLocation: sourceLocation)
      for tid in try target.threadIDs() {
        let status = ProcessStatus(parsing: try target.read("task/\(tid)/status"))
        let state = try ProcessStat(parsing: try target.read("task/\(tid)/stat")).state
        #expect(status.tracer == 0 && state != "t" && state != "T", "\(told): \(tid) is \(state)")
      }
      let smaps = String(decoding: try target.read("smaps"), as: UTF8.self)
      let isTracked = smaps.split(separator: "\n").contains {
        $0.hasPrefix("VmFlags:") && $0.split(separator: " ").contains("uw")
      }
      #expect(!isTracked, "\(told)", sourceLocation: sourceLocation)
    } catch { Issue.record("\(told): \(error)", sourceLocation: sourceLocation) }
  }

  private func ask(_ command: String) -> String {
    workload.program.send(command)
    return workload.program.readLine() ?? "it ended"
  }
}
