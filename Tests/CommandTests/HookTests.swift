import Foundation
import TestSupport
import Testing

/// The user's own commands during a dump.
@Suite(.serialized) struct HookTests {
  private let scratch: TemporaryDirectory
  private let workload: Workload
  private var images: String { scratch.file("images") }

  init() throws {
    scratch = try TemporaryDirectory()
    workload = try Workload("stamp", ["pages=2048", "rate=200"])
  }

  private func start(_ more: String...) throws -> Memdump {
    try Memdump(
      ["predump", "--pid", "\(workload.pid)", "--images-dir", images, "--no-sync", "--json"] + more)
  }

  private func lines(_ name: String) -> [String] {
    let text = (try? String(contentsOfFile: scratch.file(name), encoding: .utf8)) ?? ""
    return text.split(separator: "\n").map { String($0) }
  }

  /// A command that says in a file that it runs, and its own pid, and then runs for long.
  private var endless: String {
    "echo $$ > \(scratch.file("new")); mv \(scratch.file("new")) \(scratch.file("runs")); sleep 60"
  }

  /// Waits for the endless command; its process group.
  private func endlessRuns() throws -> Int32 {
    #expect(eventually { !lines("runs").isEmpty })
    return try #require(lines("runs").first.flatMap { Int32($0) })
  }

  private func expectEnded(group: Int32) {
    #expect(eventually { kill(-group, 0) != 0 }, "the command still runs")
  }

  @Test("--on-frozen runs while the process is stopped and traced by nobody")
  func onFrozen() throws {
    let seen = scratch.file("seen")
    let command =
      "{ env | grep -E '^MEMDUMP_(EVENT|IM|PID|ROUND)' | LC_ALL=C sort; cut -d' ' -f3 /proc/$MEMDUMP_PID/task/*/stat | sort -u; "
      + "grep TracerPid /proc/$MEMDUMP_PID/status; ls $MEMDUMP_IMAGES_DIR | tail -1; "
      + "ls /proc/self/fd | wc -l; nice; } > \(seen); echo printed"
    let outcome = try start("--on-frozen", command).finish()
    #expect([0, 3].contains(outcome.status), "\(outcome.err)")
    let events = try outcome.events()
    let last = try #require(events.last { $0.name == "round" })
    let name: String = try #require(last["name"])
    let index: Int = try #require(last["round"])
    #expect(
      lines("seen") == [
        "MEMDUMP_EVENT=frozen", "MEMDUMP_IMAGES_DIR=\(images)", "MEMDUMP_PID=\(workload.pid)",
        "MEMDUMP_PIDS=\(workload.pid)",
        "MEMDUMP_ROUND=\(index)", "MEMDUMP_ROUND_DIR=\(images)/\(name)", "T", "TracerPid:\t0",
        "\(name).partial", "4", "0",
      ])
    #expect(outcome.err.contains("printed"))
    let thawed = try #require(events.first { $0.name == "thawed" })
    #expect((thawed["command_ns"] ?? 0) > 0)
    expectFree(workload.pid)
    #expect(try Memdump.run(["restore-check", images]).status == 0)
  }

  @Test(
    "a command that fails lets the process run, and the images are not complete",
    arguments: [("exit 3", "exited with code 3"), ("kill -9 $$", "killed by signal 9")])
  func fails(command: String, word: String) throws {
    let outcome = try start("--on-frozen", command).finish()
    expectRefusal(outcome, 28, saying: word)
    expectFree(workload.pid)
    try expectNothingWhole(images)
    let names = try FileManager.default.contentsOfDirectory(atPath: images)
    #expect(!names.contains { $0.hasSuffix(".partial") }, "\(names)")
  }

  @Test("a command that takes too long is ended, and the process runs") func tooLong() throws {
    let memdump = try start("--on-frozen", endless, "--hook-timeout", "1s")
    let group = try endlessRuns()
    expectRefusal(try memdump.finish(), 28, saying: "--hook-timeout")
    expectEnded(group: group)
    expectFree(workload.pid)
    try expectNothingWhole(images)
  }

  @Test("a signal ends the command, and the process runs") func interrupted() throws {
    let memdump = try start("--on-frozen", endless)
    let group = try endlessRuns()
    memdump.send(SIGINT)
    #expect(try memdump.finish().status == 130)
    expectEnded(group: group)
    expectFree(workload.pid)
    try expectNothingWhole(images)
  }

  @Test("when memdump is killed the command ends, and the process runs") func killed() throws {
    let memdump = try start("--on-frozen", endless)
    let group = try endlessRuns()
    #expect(ProcessState(of: workload.pid).letter == "T")
    memdump.send(SIGKILL)
    _ = try memdump.finish()
    expectEnded(group: group)
    expectFree(workload.pid)
    try expectNothingWhole(images)
  }

  @Test("--leave holds after the command, too", arguments: ["stopped", "killed"])
  func leave(state: String) throws {
    #expect([0, 3].contains(try start("--on-frozen", "true", "--leave", state).finish().status))
    if state == "stopped" {
      #expect(ProcessState(of: workload.pid).letter == "T")
    } else {
      #expect(eventually { [nil, "Z"].contains(ProcessState(of: workload.pid).letter) })
    }
    #expect(try Memdump.run(["restore-check", images]).status == 0)
  }

  @Test("a process that was stopped before is stopped afterwards", arguments: ["true", "false"])
  func wasStopped(command: String) throws {
    kill(workload.pid, SIGSTOP)
    #expect(eventually { ProcessState(of: workload.pid).letter == "T" })
    let status = try start("--on-frozen", command).finish().status
    #expect(command == "true" ? [0, 3].contains(status) : status == 28)
    #expect(eventually { ProcessState(of: workload.pid).letter == "T" })
    kill(workload.pid, SIGCONT)
    expectFree(workload.pid)
  }

  @Test("a command may end the process, as criu dump does") func ended() throws {
    let outcome = try start("--on-frozen", "kill -9 $MEMDUMP_PID").finish()
    #expect([0, 3].contains(outcome.status), "\(outcome.err)")
    #expect(try Memdump.run(["restore-check", images]).status == 0)
  }

  @Test("--on-event is told of every step") func events() throws {
    let log = scratch.file("log")
    let outcome = try start(
      "--on-event", "echo $MEMDUMP_EVENT $MEMDUMP_ROUND >> \(log)"
    ).finish()
    #expect([0, 3].contains(outcome.status), "\(outcome.err)")
    let rounds = try outcome.events().count { $0.name == "round" }
    var expected: [String] = []
    for round in 1..<rounds { expected += ["pre-round \(round)", "post-round \(round)"] }
    expected += ["converged", "pre-round \(rounds)", "frozen \(rounds)", "thawed \(rounds)"]
    expected += ["post-round \(rounds)", "complete"]
    #expect(lines("log").map { $0.trimmingCharacters(in: .whitespaces) } == expected)
  }

  @Test("a command of --on-event can end the dump, and hears of the end") func veto() throws {
    let log = scratch.file("log")
    let outcome = try start(
      "--on-event",
      "echo \"$MEMDUMP_EVENT $MEMDUMP_MESSAGE\" >> \(log); test $MEMDUMP_EVENT != converged"
    ).finish()
    expectRefusal(outcome, 28, saying: "exited with code 1 (event converged)")
    #expect(lines("log").last?.hasPrefix("failed the command of --on-event exited") ?? false)
    expectFree(workload.pid)
    try expectNothingWhole(images)
  }

  @Test("SIGUSR1 asks how far the dump is, and ends nothing") func status() throws {
    let memdump = try start("--on-event", "case $MEMDUMP_EVENT in converged) \(endless);; esac")
    let group = try endlessRuns()
    memdump.send(SIGUSR1)
    #expect(eventually { memdump.errorText.contains("memdump: after ") })
    kill(-group, SIGTERM)
    expectRefusal(try memdump.finish(), 28, saying: "killed by signal 15")
  }
}
