import Foundation
import Images
import Kernel
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
    let pid = target.pid
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
    try replaceMemory(in: top, pids: [pid], rounds: summary.rounds.map(\.name), directory)

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

  @Test("criu restores a process and a child that was born between two rounds")
  func restoresTree() throws {
    guard FileManager.default.isExecutableFile(atPath: Self.criu) else {
      print("not run: there is no criu at \(Self.criu); scripts/criu-root.sh fetches one")
      return
    }
    let directory = try TemporaryDirectory()
    let log = directory.file("target.log")
    let target = try Workload(
      "stamp",
      [
        "pages=2048", "rate=5000", "threads=2", "drop=1", "detached=1", "log=\(log)",
        "lifetime=120",
      ])
    let pid = target.pid
    defer {
      for entry in (try? ProcessTree.descendants(of: pid)) ?? [] { kill(entry.pid, SIGKILL) }
      kill(pid, SIGKILL)
    }
    var options = PredumpOptions(pid: pid, imagesDirectory: directory.file("images"))
    options.includesDescendants = true
    options.compression = .none
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.maxRounds = 3
    options.leave = .stopped
    let summary = try Predump.run(options) { event in
      guard case .roundFinished(let round) = event, round.index == 1 else { return }
      kill(pid, SIGUSR2)
      #expect(eventually { (try? ProcessTree.descendants(of: pid).count) == 1 })
    }
    let child = try #require(try ProcessTree.descendants(of: pid).first).pid
    let images = directory.file("images")
    #expect(ChainVerifier.verify(images).verdict == .restorable)
    let first = summary.rounds[0].name
    // CRIU meets a parent that has no pagemap of the child.
    #expect(!FileManager.default.fileExists(atPath: "\(images)/\(first)/pagemap-\(child).img"))

    let top = directory.file("criu")
    try FileManager.default.createDirectory(atPath: top, withIntermediateDirectories: false)
    try criu(["dump", "-t", "\(pid)", "-D", top, "-o", "dump.log"], top + "/dump.log")
    #expect(eventually { kill(pid, 0) != 0 && kill(child, 0) != 0 }, "the dumped tree is gone")
    try replaceMemory(in: top, pids: [pid, child], rounds: summary.rounds.map(\.name), directory)

    try criu(["restore", "-d", "-D", top, "-o", "restore.log"], top + "/restore.log")
    let lines = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n").count
    for process in [pid, child] {
      kill(process, SIGCONT)
      kill(process, SIGUSR1)
    }
    var answers: [Substring] = []
    #expect(
      eventually {
        let all = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
        answers = Array(all.split(separator: "\n").dropFirst(lines))
        return answers.count == 2
      }, "both answer")
    #expect(answers == ["ok", "ok"])
  }

  /// Puts memdump's newest round in the place of CRIU's pages, with its parents behind it.
  private func replaceMemory(
    in top: String, pids: [Int32], rounds: [String], _ directory: TemporaryDirectory
  ) throws {
    let files = FileManager.default
    let pagemaps = pids.map { "pagemap-\($0).img" }
    for name in try files.contentsOfDirectory(atPath: top)
    where pagemaps.contains(name) || name.hasPrefix("pages-") {
      try files.removeItem(atPath: "\(top)/\(name)")
    }
    let newest = directory.file("images/\(rounds[rounds.count - 1])")
    for name in try files.contentsOfDirectory(atPath: newest)
    where pagemaps.contains(name) || name.hasPrefix("pages-") {
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
}
