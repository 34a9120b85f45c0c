import Foundation
import TestSupport
import Testing

/// Dumps that somebody ends.
@Suite(.serialized) struct InterruptTests {
  private let scratch: TemporaryDirectory
  private let workload: Workload
  private var images: String { scratch.file("images") }

  init() throws {
    scratch = try TemporaryDirectory()
    workload = try Workload("stamp", ["pages=4096", "rate=20000", "cold=100"])
  }

  /// A dump that has one round, and at least two more to go: a stall takes three.
  private func startEndless() throws -> Memdump {
    let memdump = try Memdump([
      "predump", "--pid", "\(workload.pid)", "--images-dir", images, "--json",
      "--target-downtime", "1us", "--threshold-pages", "0", "--max-rounds", "1000",
    ])
    let round = try memdump.wait(for: "round")
    #expect(round?["verdict"] == "next-round")
    // What the tests below find gone afterwards is seen while it is there.
    #expect(ProcessState(of: workload.pid).isTracked)
    return memdump
  }

  @Test("a signal ends a dump after its complete rounds", arguments: [SIGINT, SIGTERM, SIGHUP])
  func interrupted(signal: Int32) throws {
    let memdump = try startEndless()
    memdump.send(signal)
    let outcome = try memdump.finish()
    expectRefusal(outcome, 128 + signal, saying: "untracked")
    let error = try #require(try outcome.events().last)
    #expect(error.name == "error")
    #expect(error["kind"] == "interrupted")
    #expect(error["exit_code"] == Int(128 + signal))
    expectFree(workload.pid)
    try expectNothingWhole(images)
    let rounds = try outcome.events().count { $0.name == "round" }
    let inspect = try #require(try Memdump.run(["inspect", "--json", images]).events().first)
    let session: [String: Any] = try #require(inspect["session"])
    #expect(session["outcome"] as? String == "interrupted")
    #expect((session["rounds"] as? [String])?.count == rounds)
    let names = try FileManager.default.contentsOfDirectory(atPath: images)
    #expect(!names.contains { $0.hasSuffix(".partial") }, "\(names)")
  }

  @Test("a dump that waits for its bandwidth hears a signal", .timeLimit(.minutes(1)))
  func throttled() throws {
    // Sixteen megabytes at 64 KiB a second: over four minutes.
    let memdump = try Memdump([
      "predump", "--pid", "\(workload.pid)", "--images-dir", images, "--json", "--bwlimit", "64KiB",
    ])
    #expect(try memdump.wait(for: "attached") != nil)
    memdump.send(SIGINT)
    #expect(try memdump.finish().status == 128 + SIGINT)
    expectFree(workload.pid)
  }

  @Test("a second dump of a process that is being dumped is refused, and the first goes on")
  func second() throws {
    let memdump = try startEndless()
    memdump.send(SIGSTOP)  // tracking goes on, and ends neither before nor during the second
    let other = scratch.file("other")
    expectRefusal(
      try Memdump.run(["predump", "--pid", "\(workload.pid)", "--images-dir", other]), 24,
      saying: "tracked by another program")
    #expect(ProcessState(of: workload.pid).isTracked)
    memdump.send(SIGCONT)
    memdump.send(SIGINT)
    #expect(try memdump.finish().status == 128 + SIGINT)
    expectFree(workload.pid)
  }

  @Test("a second signal ends it at once, and the target runs on") func twice() throws {
    let memdump = try startEndless()
    memdump.send(SIGINT)
    memdump.send(SIGTERM)
    let status = try memdump.finish().status
    // 130 if the first signal was faster.
    #expect(status == 128 + SIGTERM || status == 128 + SIGINT)
    expectFree(workload.pid)
    try expectNothingWhole(images)
  }

  @Test("the target survives memdump's sudden death") func killed() throws {
    let memdump = try startEndless()
    memdump.send(SIGKILL)
    _ = try memdump.finish()
    expectFree(workload.pid)
    try expectNothingWhole(images)
  }

  @Test("a reader that went away is no reason to end badly") func brokenPipe() throws {
    let script =
      "\"$0\" predump --pid \(workload.pid) --images-dir \"$1\" --no-sync -v | true; "
      + "exit ${PIPESTATUS[0]}"
    let outcome = try Memdump.run([images], wrapper: ["/bin/bash", "-c", script])
    #expect([0, 3].contains(outcome.status), "\(outcome)")
    #expect(outcome.err.allSatisfy { $0.hasPrefix("memdump: warning: ") }, "\(outcome.err)")
    expectFree(workload.pid)
  }

  @Test("--on-stall abort gives up and keeps the rounds") func stalled() throws {
    let outcome = try Memdump.run([
      "predump", "--pid", "\(workload.pid)", "--images-dir", images, "--json",
      "--target-downtime", "1us", "--threshold-pages", "0", "--max-rounds", "2",
      "--on-stall", "abort",
    ])
    expectRefusal(outcome, 23, saying: "--target-downtime")
    expectFree(workload.pid)
    try expectNothingWhole(images)
  }
}
