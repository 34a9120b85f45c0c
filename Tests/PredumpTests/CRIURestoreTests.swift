import Foundation
import Images
import TestSupport
import Testing
import Tracee

@testable import Predump

/// A real `criu restore` of a process whose memory comes from memdump's chain alone.
@Suite(.serialized) struct CRIURestoreTests {
  private static let criu =
    (ProcessInfo.processInfo.environment["MEMDUMP_CRIU_ROOT"] ?? ".build/criu") + "/bin/criu"

  @Test(
    "criu restores a process from memdump's pages, and it finds all its memory right",
    arguments: [false, true])
  func restores(inFreeze: Bool) throws {
    guard FileManager.default.isExecutableFile(atPath: Self.criu) else {
      print("not run: there is no criu at \(Self.criu); scripts/criu-root.sh fetches one")
      return
    }
    let directory = try TemporaryDirectory()
    let log = directory.file("target.log")
    let target = try Workload(
      "stamp",
      [
        "pages=4096", "rate=5000", "threads=2", "drop=1", "detached=1", "log=\(log)",
        "lifetime=120",
      ])
    let pid = try target.processID()
    defer { kill(pid, SIGKILL) }
    var options = PredumpOptions(pid: pid, imagesDirectory: directory.file("images"))
    options.compression = .none
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.maxRounds = 3
    options.leave = .stopped
    // CRIU takes what is not memory, while the process is stopped: in the freeze, or after it.
    let top = directory.file("criu")
    try FileManager.default.createDirectory(atPath: top, withIntermediateDirectories: false)
    if inFreeze {
      options.hooks.onFrozen = "exec '\(Self.criu)' dump -t $MEMDUMP_PID -D '\(top)' -o dump.log"
    }
    let summary = try Predump.run(options) { _ in }
    if !inFreeze {
      try criu(["dump", "-t", "\(pid)", "-D", top, "-o", "dump.log"], top + "/dump.log")
    }
    #expect(eventually { kill(pid, 0) != 0 }, "the dumped process is gone")
    try replaceMemory(in: top, pid: pid, rounds: summary.rounds.map(\.name), directory)

    try criu(["restore", "-d", "-D", top, "-o", "restore.log"], top + "/restore.log")
    kill(pid, SIGCONT)
    let lines = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n").count
    kill(pid, SIGUSR1)
    var answer: Substring?
    #expect(
      eventually {
        let all = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
        answer = all.split(separator: "\n").dropFirst(lines).first
        return answer != nil
      }, "the restored process answers")
    #expect(answer == "ok")
  }

  /// Puts memdump's newest round in the place of CRIU's pages, with its parents behind it.
  private func replaceMemory(
    in top: String, pid: Int32, rounds: [String], _ directory: TemporaryDirectory
  ) throws {
    let files = FileManager.default
    for name in try files.contentsOfDirectory(atPath: top)
    where name == "pagemap-\(pid).img" || name.hasPrefix("pages-") {
      try files.removeItem(atPath: "\(top)/\(name)")
    }
    let newest = directory.file("images/\(rounds[rounds.count - 1])")
    for name in ["pagemap-\(pid).img", "pages-1.img"] {
      try files.copyItem(atPath: "\(newest)/\(name)", toPath: "\(top)/\(name)")
    }
    try files.createSymbolicLink(
      atPath: "\(top)/parent",
      withDestinationPath: "../images/\(rounds[rounds.count - 2])")
  }

  private func criu(_ arguments: [String], _ log: String) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: Self.criu)
    process.arguments = arguments
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    process.standardInput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    let text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
    try #require(
      process.terminationStatus == 0,
      "criu \(arguments[0]) failed: \(text.split(separator: "\n").suffix(12).joined(separator: "\n"))"
    )
  }

  /// Looks again and again, for ten seconds at most.
  private func eventually(_ condition: () -> Bool) -> Bool {
    let deadline = Date().addingTimeInterval(10)
    while Date() < deadline {
      if condition() { return true }
      sched_yield()
    }
    return false
  }
}
