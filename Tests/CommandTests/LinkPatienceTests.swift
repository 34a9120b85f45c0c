import Foundation
import Kernel
import TestSupport
import Testing

/// Links whose other end is slow, or silent.
@Suite(.serialized) struct LinkPatienceTests {
  private let scratch: TemporaryDirectory
  private var received: String { scratch.file("received") }

  init() throws { scratch = try TemporaryDirectory() }

  private func receiver(_ options: [String] = []) throws -> (Memdump, String) {
    let receiver = try Memdump(
      ["receive", "--images-dir", received, "--from", "tcp:127.0.0.1:0", "--json", "--no-sync"]
        + options)
    let listening = try #require(try receiver.wait(for: "listening"))
    return (receiver, try #require(listening["at"] as String?))
  }

  private func sender(_ pid: Int32, _ place: String, _ options: [String] = []) throws -> Memdump {
    try Memdump(
      [
        "predump", "--pid", "\(pid)", "--to", place, "--json", "--no-sync",
        "--pause-between-rounds", "1h", "--target-downtime", "1us", "--threshold-pages", "0",
      ] + options)
  }

  @Test("a receiver that falls silent between rounds is noticed, and the process runs on")
  func silentReceiver() throws {
    let workload = try Workload("stamp", ["pages=256", "rate=200"])
    let (receiver, place) = try receiver(["--link-timeout", "1s"])
    let sender = try sender(workload.pid, place, ["--link-timeout", "1s"])
    _ = try #require(try receiver.wait(for: "received"))
    receiver.send(SIGSTOP)
    expectRefusal(try sender.finish(), 27, saying: "the receiver was silent for 1 s")
    expectFree(workload.pid)
    receiver.send(SIGCONT)
    expectRefusal(try receiver.finish(), 27, saying: "1 complete round kept")
    #expect(try Memdump.run(["restore-check", "-q", received]).status == 13)
  }

  @Test("a sender that falls silent is noticed, and complete rounds are kept")
  func silentSender() throws {
    let workload = try Workload("stamp", ["pages=256", "rate=200"])
    let (receiver, place) = try receiver(["--link-timeout", "1s"])
    let sender = try sender(workload.pid, place)
    _ = try #require(try receiver.wait(for: "received"))
    sender.send(SIGSTOP)
    expectRefusal(try receiver.finish(), 27, saying: "1 complete round kept")
    sender.send(SIGCONT)
    #expect(try sender.finish().status == 27)
    expectFree(workload.pid)
  }

  @Test("a side that waits long is not taken for one that is gone") func patientSides() throws {
    let workload = try Workload("stamp", ["pages=256", "rate=200"])
    let (receiver, place) = try receiver(["--link-timeout", "1s"])
    // The sender would show that it lives every 3 seconds, did the receiver not say what it needs.
    let sender = try sender(
      workload.pid, place, ["--pause-between-rounds", "2500ms", "--max-rounds", "2"])
    #expect([0, 3].contains(try sender.finish().status))
    #expect(try receiver.finish().status == 0)
  }

  @Test("over a slow link memory stays bounded on both sides") func slow() throws {
    let mebibytes = 192
    let workload = try Workload("stamp", ["pages=\(mebibytes * 256)", "rate=200"])
    let socket = scratch.file("socket")
    let receiver = try Memdump([
      "receive", "--images-dir", received, "--from", "unix:\(socket)", "--json", "--no-sync",
    ])
    _ = try #require(try receiver.wait(for: "listening"))
    let proxy = try CuttingProxy(
      at: socket + ".proxy", to: socket, bytesPerSecond: 64 << 20
    ) { true }
    let sender = try sender(workload.pid, "unix:\(socket).proxy", ["--compress", "none"])
    _ = try #require(try receiver.wait(for: "received"))
    #expect(proxy.passed > mebibytes << 20)
    for program in [sender, receiver] {
      let peak = try #require(Self.peakMebibytes(program.pid))
      #expect(peak < 96, "\(peak) MiB")
    }
    sender.send(SIGTERM)
    #expect(try sender.finish().status == 143)
    #expect(try receiver.finish().status == 13)
  }

  /// The most memory that a process has had.
  private static func peakMebibytes(_ pid: Int32) -> Int? {
    let status = try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
    let line = status?.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
    return line?.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 / 1024 }
  }
}
