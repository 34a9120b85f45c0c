import Foundation
import Kernel
import TestSupport
import Testing

/// Dumps that go to another memdump.
@Suite(.serialized) struct TransferTests {
  private let scratch: TemporaryDirectory
  private var workload: Workload
  private var received: String { scratch.file("received") }
  private var stored: String { scratch.file("stored") }

  init() throws {
    scratch = try TemporaryDirectory()
    workload = try Workload("stamp", ["pages=1024", "rate=200"])
  }

  private func receiver(from source: String, into directory: String) throws -> (Memdump, String) {
    let receiver = try Memdump([
      "receive", "--images-dir", directory, "--from", source, "--json", "--no-sync",
    ])
    let listening = try #require(try receiver.wait(for: "listening"))
    return (receiver, try #require(listening["at"] as String?))
  }

  /// Expects that `directory` holds what the stopped process holds.
  private func expectEqual(
    _ directory: String, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let check = try Memdump.run(
      ["restore-check", "--json", "--pid", "\(workload.pid)", directory])
    #expect(check.status == 0, "\(check.out) \(check.err)", sourceLocation: sourceLocation)
    let live: [String: Any]? = try check.events().first?["live"]
    #expect(live?["equal"] as? Bool == true, sourceLocation: sourceLocation)
  }

  @Test("through a pipe: images on stdout, words on stderr") func pipe() throws {
    let script =
      "\"$0\" predump --pid \(workload.pid) --to - --leave stopped --json --no-sync 2>\"$2\" | "
      + "\"$0\" receive --images-dir \"$1\" --no-sync --quiet; echo ${PIPESTATUS[@]}"
    let outcome = try Memdump.run(
      [received, scratch.file("words")], wrapper: ["/bin/bash", "-c", script])
    #expect(["0 0", "3 0"].contains(outcome.out.last), "\(outcome)")
    let words = try String(contentsOfFile: scratch.file("words"), encoding: .utf8)
    let events = try words.split(separator: "\n").map { try Event(String($0)) }
    #expect(events.last?.name == "summary")
    try expectEqual(received)
    kill(workload.pid, SIGCONT)
  }

  @Test("over sockets, stored here too: both directories are the same", arguments: ["unix", "tcp"])
  func sockets(kind: String) throws {
    let source = kind == "unix" ? "unix:\(scratch.file("socket"))" : "tcp:127.0.0.1:0"
    let (receiver, place) = try receiver(from: source, into: received)
    let outcome = try Memdump.run([
      "predump", "--pid", "\(workload.pid)", "--to", place, "--images-dir", stored,
      "--leave", "stopped", "--no-sync", "--quiet",
    ])
    #expect([0, 3].contains(outcome.status), "\(outcome.err)")
    let end = try receiver.finish()
    #expect(end.status == 0, "\(end.err)")
    #expect(try end.events().last?.name == "receipt")
    try expectEqual(received)
    try expectEqual(stored)
    let files = FileManager.default
    let names = try #require(files.subpaths(atPath: stored)).sorted()
    #expect(names == files.subpaths(atPath: received)?.sorted())
    for name in names {
      #expect(
        files.contents(atPath: "\(stored)/\(name)")
          == files.contents(atPath: "\(received)/\(name)"), "\(name)")
    }
    kill(workload.pid, SIGCONT)
  }

  @Test("without a receiver the process is left alone") func nobody() throws {
    let outcome = try Memdump.run([
      "predump", "--pid", "\(workload.pid)", "--to", "unix:\(scratch.file("nobody"))",
    ])
    expectRefusal(outcome, 27)
    expectFree(workload.pid)
  }

  @Test("a receiver that is no memdump, and a sender that is none") func strangers() throws {
    let (receiver, place) = try receiver(from: "tcp:127.0.0.1:0", into: received)
    let script =
      "exec 3<>/dev/tcp/127.0.0.1/${0##*:}; printf 'GET / HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n' >&3; cat <&3"
    let stranger = try ChildProgram("/bin/bash", ["-c", script, place], lifetime: 20)
    expectRefusal(try receiver.finish(), 12, saying: "no frame begins with")
    stranger.end()
    #expect(!FileManager.default.fileExists(atPath: received))
  }

  @Test("what cannot work is refused before anything is touched") func usage() throws {
    let dump = ["predump", "--pid", "\(workload.pid)", "--to"]
    expectRefusal(try Memdump.run(dump + ["-", "--leave", "killed"]), 64, saying: "--leave killed")
    expectRefusal(try Memdump.run(dump + ["-", "--verify-final"]), 64, saying: "--images-dir")
    expectRefusal(try Memdump.run(dump + ["somewhere"]), 64, saying: "tcp:HOST:PORT")
    expectRefusal(try Memdump.run(["predump", "--pid", "1"]), 64, saying: "--to")
  }

  @Test("an interrupted dump tells the receiver so") func interrupted() throws {
    let (receiver, place) = try receiver(
      from: "unix:\(scratch.file("socket"))", into: received)
    let sender = try Memdump([
      "predump", "--pid", "\(workload.pid)", "--to", place, "--json",
      "--pause-between-rounds", "1h", "--target-downtime", "1us", "--threshold-pages", "0",
    ])
    _ = try #require(try sender.wait(for: "round"))
    sender.send(SIGTERM)
    #expect(try sender.finish().status == 143)
    let end = try receiver.finish()
    #expect(end.status == 13, "\(end.err)")
    #expect(try end.events().last?["outcome"] == "interrupted")
    #expect(try Memdump.run(["restore-check", "-q", received]).status == 13)
    expectFree(workload.pid)
  }

  /// What goes wrong in the midst of a transfer.
  private enum Accident: CaseIterable { case cut, receiverDies, senderDies }

  // MEMDUMP_CUTS: how many; MEMDUMP_TEST_SEED plays them again.
  @Test("wherever the link breaks, the process runs on and complete rounds are kept")
  mutating func accidents() throws {
    let environment = ProcessInfo.processInfo.environment
    let seed = environment["MEMDUMP_TEST_SEED"].flatMap { UInt64($0) } ?? .random(in: 0...1 << 48)
    print("MEMDUMP_TEST_SEED=\(seed)")
    var random = SeededRandom(seed: seed)
    // Without an accident first: how long the stream is.
    let length = try transfer(0, .cut, limit: .max, leave: "running")
    #expect(length > 100_000)
    for turn in 1...(environment["MEMDUMP_CUTS"].flatMap { Int($0) } ?? 40) {
      let accident = Accident.allCases.randomElement(using: &random) ?? .cut
      // A workload does not live for ever.
      if turn % 10 == 0 { workload = try Workload("stamp", ["pages=1024", "rate=200"]) }
      // Many at the begin and the end, where most frames are.
      let around = [0...4096, 0...length, (length - 300_000)...length][turn % 3]
      _ = try transfer(
        turn, accident, limit: max(0, Int.random(in: around, using: &random)),
        leave: turn % 2 == 0 ? "running" : "stopped")
    }
  }

  /// Sends a dump with an accident after `limit` bytes, and expects that all is well afterwards.
  private func transfer(_ turn: Int, _ accident: Accident, limit: Int, leave: String) throws -> Int
  {
    let what: Comment = "turn \(turn): \(accident) after \(limit) bytes, \(leave)"
    let directory = scratch.file("received-\(turn)")
    let socket = scratch.file("socket-\(turn)")
    let (receiver, _) = try receiver(from: "unix:\(socket)", into: directory)
    let receiverPID = receiver.pid
    // Known only after the proxy listens.
    let senderPID = BlockingQueue<Int32>()
    let proxy = try CuttingProxy(at: socket + ".proxy", to: socket, limit: limit) {
      switch accident {
      case .cut: return false
      case .receiverDies: kill(receiverPID, SIGKILL)
      case .senderDies: if let pid = senderPID.take() { kill(pid, SIGKILL) }
      }
      return true
    }
    let program = try Memdump([
      "predump", "--pid", "\(workload.pid)", "--to", "unix:\(socket).proxy", "--leave", leave,
      "--max-rounds", "3", "--target-downtime", "1us", "--threshold-pages", "0", "--no-sync",
      "--quiet",
    ])
    senderPID.put(program.pid)
    let sent = try program.finish()
    proxy.wait()
    let taken = try receiver.finish()
    let isSent = [0, 3].contains(sent.status)
    #expect(isSent || proxy.acted, what)
    #expect(isSent || sent.status == (accident == .senderDies ? 9 : 27), "\(what) \(sent)")
    #expect(
      [0, accident == .receiverDies ? 9 : 27].contains(taken.status), "\(what) \(taken)")
    if isSent && leave == "stopped" {
      #expect(ProcessState(of: workload.pid).letter == "T", what)
      kill(workload.pid, SIGCONT)
    }
    // Who dies right after it left the process stopped, as it was told, cannot let it run again.
    if accident == .senderDies, ProcessState(of: workload.pid).letter == "T" {
      kill(workload.pid, SIGCONT)
    }
    expectFree(workload.pid)
    let check = try Memdump.run(["restore-check", "-q", directory])
    #expect(isSent ? check.status == 0 : [0, 10, 13].contains(check.status), "\(what) \(check)")
    let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    #expect(
      accident == .receiverDies || !names.contains { $0.hasSuffix(".partial") }, "\(what) \(names)")
    try? FileManager.default.removeItem(atPath: directory)
    return proxy.passed
  }
}
