import Foundation
import Images
import Migration
import Predump
import TestSupport
import Testing
import Tracee

/// A stamped process (see `Tests/Workloads/stamp.c`) that writes all the time, dumped in rounds and
/// left stopped. It can say whether all its memory is right.
final class DumpedTarget {
  static let criuPath =
    (ProcessInfo.processInfo.environment["MEMDUMP_CRIU_ROOT"] ?? ".build/criu") + "/bin/criu"
  static var hasCRIU: Bool {
    if FileManager.default.isExecutableFile(atPath: criuPath) { return true }
    print("not run: there is no criu at \(criuPath); scripts/criu-root.sh fetches one")
    return false
  }

  let directory: TemporaryDirectory
  let workload: Workload
  let pid: Int32
  let images: String
  private let log: String

  init(_ compression: PageCompression, pages: Int = 2048) throws {
    directory = try TemporaryDirectory()
    log = directory.file("target.log")
    images = directory.file("images")
    workload = try Workload(
      "stamp",
      [
        "pages=\(pages)", "rate=5000", "threads=2", "drop=1", "detached=1", "log=\(log)",
        "lifetime=120",
      ])
    pid = workload.pid
    var options = PredumpOptions(pid: pid, imagesDirectory: images)
    options.compression = compression
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.maxRounds = 3
    options.leave = .stopped
    _ = try Predump.run(options) { _ in }
  }

  deinit { kill(pid, SIGKILL) }

  var state: Character? {
    let text = (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)) ?? ""
    return text.split(separator: ")").last?.dropFirst().first
  }

  var dumpOptions: StateDumpOptions {
    var options = StateDumpOptions(directory: images)
    options.criu = CRIUProgram(Self.criuPath)
    return options
  }

  var restoreOptions: RestoreOptions {
    var options = RestoreOptions(directory: images)
    options.criu = CRIUProgram(Self.criuPath)
    return options
  }

  /// Asks the process to look at all its memory; what it says.
  func answer() -> String? {
    let before = lines.count
    kill(pid, SIGUSR1)
    var answer: String?
    _ = Self.eventually {
      answer = self.lines.dropFirst(before).first
      return answer != nil
    }
    return answer
  }

  private var lines: [String] {
    ((try? String(contentsOfFile: log, encoding: .utf8)) ?? "").split(separator: "\n").map(
      String.init)
  }

  /// Looks again and again, for ten seconds at most.
  static func eventually(_ condition: () -> Bool) -> Bool {
    let deadline = Date().addingTimeInterval(10)
    while Date() < deadline {
      if condition() { return true }
      sched_yield()
    }
    return false
  }
}
