import Foundation
import Kernel
import TestSupport
import Testing

/// Dumps whose link breaks and is made anew.
@Suite(.serialized) struct ReconnectTests {
  private let scratch: TemporaryDirectory

  init() throws { scratch = try TemporaryDirectory() }

  private func receiver(_ directory: String, at socket: String) throws -> Memdump {
    let receiver = try Memdump([
      "receive", "--images-dir", directory, "--from", "unix:\(socket)", "--json", "--no-sync",
      "--reconnect", "30s",
    ])
    _ = try #require(try receiver.wait(for: "listening"))
    return receiver
  }

  private func sender(_ pid: Int32, to socket: String, _ options: [String] = []) throws -> Memdump {
    try Memdump(
      [
        "predump", "--pid", "\(pid)", "--to", "unix:\(socket)", "--leave", "stopped", "--json",
        "--max-rounds", "4", "--target-downtime", "1us", "--threshold-pages", "0", "--min-shrink",
        "0", "--no-sync", "--reconnect", "20s",
      ] + options)
  }

  /// Expects a dump that came to its end, and that the stopped process is what was stored.
  private func expectDump(
    of pid: Int32, by sender: Memdump, _ receiver: Memdump, in directory: String, _ what: Comment,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let sent = try sender.finish()
    #expect([0, 3].contains(sent.status), "\(what): \(sent.err)", sourceLocation: sourceLocation)
    let taken = try receiver.finish()
    #expect(taken.status == 0, "\(what): \(taken.err)", sourceLocation: sourceLocation)
    let check = try Memdump.run(["restore-check", "--json", "--pid", "\(pid)", directory])
    #expect(
      check.status == 0, "\(what): \(check.out) \(sent.out)", sourceLocation: sourceLocation)
    let live: [String: Any]? = try check.events().first?["live"]
    #expect(live?["equal"] as? Bool == true, what, sourceLocation: sourceLocation)
    kill(pid, SIGCONT)
    expectFree(pid, sourceLocation: sourceLocation)
  }

  // MEMDUMP_CUTS: how many dumps; MEMDUMP_TEST_SEED plays them again.
  @Test("wherever the link breaks, and however often, nothing is lost") func cuts() throws {
    let environment = ProcessInfo.processInfo.environment
    let seed = environment["MEMDUMP_TEST_SEED"].flatMap { UInt64($0) } ?? .random(in: 0...1 << 48)
    print("MEMDUMP_TEST_SEED=\(seed)")
    var random = SeededRandom(seed: seed)
    var (length, broken) = (0, 0)
    for turn in 0..<(environment["MEMDUMP_CUTS"].flatMap { Int($0) } ?? 12) {
      let workload =
        turn % 2 == 0
        ? try Workload("stamp", ["pages=1024", "rate=20000"])
        : try Workload("hostile", ["seed=\(Int.random(in: 1...1 << 20, using: &random))"])
      let directory = scratch.file("received-\(turn)")
      let socket = scratch.file("socket-\(turn)")
      let receiver = try receiver(directory, at: socket)
      // The first two runs say how long a stream is.
      let cuts =
        turn < 2
        ? []
        : (0..<Int.random(in: 1...5, using: &random)).map { _ in
          Int.random(in: 0...(Bool.random(using: &random) ? length : length / 8), using: &random)
        }
      let proxy = try CuttingProxy(at: socket + ".proxy", to: socket, cuts: cuts)
      let sender = try sender(workload.pid, to: socket + ".proxy")
      try expectDump(
        of: workload.pid, by: sender, receiver, in: directory, "turn \(turn), cuts \(cuts)")
      proxy.wait()
      length = max(length, proxy.passed)
      broken += proxy.cuts
      try? FileManager.default.removeItem(atPath: directory)
    }
    #expect(broken > 0)
  }

  @Test("a receiver that died has a successor in the same directory") func successor() throws {
    let workload = try Workload("stamp", ["pages=1024", "rate=2000"])
    let directory = scratch.file("received")
    let socket = scratch.file("socket")
    let first = try receiver(directory, at: socket)
    let control = scratch.file("control")
    let sender = try sender(
      workload.pid, to: socket, ["--pause-between-rounds", "1h", "--control", control])
    _ = try #require(try first.wait(for: "received"))
    first.send(SIGKILL)
    _ = try first.finish()
    let second = try receiver(directory, at: socket)
    let warnings = try (0..<2).map { _ in
      try #require(try sender.wait(for: "warning")?["message"] as String?)
    }
    #expect(warnings[1].contains("with 1 of 1 complete rounds"), "\(warnings)")
    #expect(try Memdump.run(["control", control, "final"]).status == 0)
    try expectDump(of: workload.pid, by: sender, second, in: directory, "successor")
  }

  @Test("a receiver with the rounds of another dump is not taken for the one that was lost")
  func stranger() throws {
    let workload = try Workload("stamp", ["pages=256", "rate=2000"])
    let (directory, other) = (scratch.file("received"), scratch.file("other"))
    let socket = scratch.file("socket")
    // Another dump of the same process, broken off.
    let earlier = try receiver(other, at: scratch.file("earlier"))
    let dump = try sender(
      workload.pid, to: scratch.file("earlier"), ["--pause-between-rounds", "1h"])
    _ = try #require(try earlier.wait(for: "received"))
    earlier.send(SIGKILL)
    dump.send(SIGKILL)
    _ = try (earlier.finish(), dump.finish())
    expectFree(workload.pid)

    let first = try receiver(directory, at: socket)
    let sender = try sender(
      workload.pid, to: socket, ["--pause-between-rounds", "1h", "--reconnect", "2s"])
    _ = try #require(try first.wait(for: "received"))
    first.send(SIGKILL)
    _ = try first.finish()
    let second = try receiver(other, at: socket)
    expectRefusal(try sender.finish(), 27, saying: "not of this dump")
    second.send(SIGTERM)
    #expect(try second.finish().status == 143)
    expectFree(workload.pid)
    for place in [directory, other] {
      #expect(try Memdump.run(["restore-check", "-q", place]).status == 13)
    }
  }

  @Test("who gives up in time leaves the process alone and the rounds there") func late() throws {
    let workload = try Workload("stamp", ["pages=256", "rate=2000"])
    let directory = scratch.file("received")
    let socket = scratch.file("socket")
    let receiver = try receiver(directory, at: socket)
    let sender = try sender(
      workload.pid, to: socket, ["--pause-between-rounds", "1h", "--reconnect", "1s"])
    _ = try #require(try receiver.wait(for: "received"))
    receiver.send(SIGTERM)
    #expect(try receiver.finish().status == 143)
    expectRefusal(try sender.finish(), 27, saying: "1 round")
    expectFree(workload.pid)
    #expect(try Memdump.run(["restore-check", "-q", directory]).status == 13)
  }

  @Test("what cannot be taken again is not begun") func usage() throws {
    let dump = ["predump", "--pid", "1", "--reconnect", "5s"]
    expectRefusal(try Memdump.run(dump + ["--to", "-"]), 64, saying: "--reconnect")
    expectRefusal(
      try Memdump.run(dump + ["--to", "unix:x", "--on-frozen", "true"]), 64, saying: "--on-frozen")
    expectRefusal(try Memdump.run(dump + ["--to", "unix:x", "--tree"]), 64, saying: "--tree")
    expectRefusal(
      try Memdump.run(["receive", "--images-dir", "x", "--reconnect", "5s"]), 64, saying: "pipe")
  }
}
