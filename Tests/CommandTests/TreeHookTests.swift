import Foundation
import Kernel
import TestSupport
import Testing

/// `--on-frozen` with `--tree`: a command that is handed a process and its descendants.
@Suite(.serialized) struct TreeHookTests {
  private let scratch: TemporaryDirectory
  private let workload: Workload
  private var images: String { scratch.file("images") }

  init() throws {
    scratch = try TemporaryDirectory()
    workload = try Workload("tree", ["keep=2", "deep=1", "churn=2", "life_ms=20"])
    let all = eventually { pids.count >= 6 }
    try #require(all, "\(pids)")
  }

  /// The process and its descendants, as they are now.
  private var pids: [Int32] {
    [workload.pid] + ((try? ProcessTree.descendants(of: workload.pid)) ?? []).map(\.pid)
  }

  private func start(_ more: String...) throws -> Memdump {
    try Memdump(
      [
        "predump", "--pid", "\(workload.pid)", "--tree", "--images-dir", images, "--no-sync",
        "--json",
      ] + more)
  }

  private func words(_ name: String) -> [[String]] {
    let text = (try? String(contentsOfFile: scratch.file(name), encoding: .utf8)) ?? ""
    return text.split(separator: "\n").map { $0.split(separator: " ").map { String($0) } }
  }

  /// A command that says in a file who is stopped, and then runs for long.
  private var endless: String {
    "echo $MEMDUMP_PIDS > \(scratch.file("new")); mv \(scratch.file("new")) "
      + "\(scratch.file("runs")); sleep 60"
  }

  /// Waits for the endless command; the processes that it was handed.
  private func endlessRuns() throws -> [Int32] {
    #expect(eventually { !words("runs").isEmpty })
    let handed = try #require(words("runs").first).compactMap { Int32($0) }
    #expect(handed.count >= 6 && handed.first == workload.pid)
    for pid in handed {
      let state = ProcessState(of: pid)
      #expect(state.letter == "T" && state.tracer == 0, "\(pid): \(state)")
    }
    return handed
  }

  private func expectAllFree() {
    // Some come and go: whoever there is.
    let isFree = eventually {
      pids.allSatisfy { !["T", "t"].contains(ProcessState(of: $0).letter) }
    }
    #expect(isFree, "\(pids.map { ProcessState(of: $0) })")
    expectFree(workload.pid)
    let before = Set(pids)
    #expect(eventually { Set(pids) != before }, "children come and go")
  }

  @Test("all processes are stopped, traced by nobody, and then run") func handsOver() throws {
    let seen = scratch.file("seen")
    let command =
      "{ echo $MEMDUMP_PIDS; for pid in $MEMDUMP_PIDS; do cut -d' ' -f3 /proc/$pid/task/*/stat; "
      + "grep TracerPid /proc/$pid/status; done | sort -u; } > \(seen)"
    let outcome = try start("--on-frozen", command).finish()
    #expect([0, 3].contains(outcome.status), "\(outcome.err)")
    let lines = words("seen")
    #expect(lines.dropFirst().map { $0.joined(separator: " ") } == ["T", "TracerPid:\t0"])
    let thawed = try #require(try outcome.events().first { $0.name == "thawed" })
    #expect(thawed["processes"] == lines.first?.count)
    expectAllFree()
    #expect(try Memdump.run(["restore-check", images]).status == 0)
  }

  @Test("a command that fails lets all run, and the images are not complete") func fails() throws {
    expectRefusal(try start("--on-frozen", "exit 3").finish(), 28, saying: "exited with code 3")
    expectAllFree()
    try expectNothingWhole(images)
  }

  @Test("when memdump is killed, all run") func killed() throws {
    let memdump = try start("--on-frozen", endless)
    _ = try endlessRuns()
    memdump.send(SIGKILL)
    _ = try memdump.finish()
    expectAllFree()
    try expectNothingWhole(images)
  }

  @Test("who was stopped before stays stopped", arguments: ["true", "false", "kill"])
  func wasStopped(how: String) throws {
    // One that stays, and has a child of its own.
    var parent: Int32?
    _ = eventually {
      let all = (try? ProcessTree.descendants(of: workload.pid)) ?? []
      parent =
        all.first { one in
          one.parent == workload.pid && all.contains { $0.parent == one.pid }
        }?.pid
      return parent != nil
    }
    let child = try #require(parent)
    kill(child, SIGSTOP)
    #expect(eventually { ProcessState(of: child).letter == "T" })
    let memdump = try start("--on-frozen", how == "kill" ? endless : how)
    if how == "kill" {
      _ = try endlessRuns()
      memdump.send(SIGKILL)
    }
    _ = try memdump.finish()
    #expect(eventually { ProcessState(of: workload.pid).isFree })
    #expect(eventually { ProcessState(of: child).letter == "T" })
    var own: [Int32] = []
    // A list can miss one whose sibling ends in that instant.
    #expect(
      eventually {
        own = ((try? ProcessTree.descendants(of: child)) ?? []).map(\.pid)
        return !own.isEmpty
      })
    for pid in own { expectFree(pid) }
    kill(child, SIGCONT)
    expectAllFree()
  }

  @Test("--leave holds for all after the command", arguments: ["stopped", "killed"])
  func leave(state: String) throws {
    let memdump = try start(
      "--on-frozen", "echo $MEMDUMP_PIDS > \(scratch.file("all"))", "--leave", state)
    #expect([0, 3].contains(try memdump.finish().status))
    let all = try #require(words("all").first).compactMap { Int32($0) }
    #expect(all.count >= 6)
    for pid in all {
      if state == "stopped" {
        #expect(ProcessState(of: pid).letter == "T")
      } else {
        #expect(eventually { [nil, "Z"].contains(ProcessState(of: pid).letter) })
      }
    }
    #expect(try Memdump.run(["restore-check", images]).status == 0)
  }
}
