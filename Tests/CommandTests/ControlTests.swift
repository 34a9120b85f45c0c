import Foundation
import Kernel
import TestSupport
import Testing

/// What a dump that runs can be asked for.
@Suite(.serialized) struct ControlTests {
  private let scratch: TemporaryDirectory
  private let workload: Workload
  private var socket: String { scratch.file("control") }
  private var images: String { scratch.file("images") }

  init() throws {
    scratch = try TemporaryDirectory()
    workload = try Workload("stamp", ["pages=256", "rate=2000"])
  }

  /// A dump that waits for an hour after its first round.
  private func dump(_ options: [String] = []) throws -> Memdump {
    let dump = try Memdump(
      [
        "predump", "--pid", "\(workload.pid)", "--images-dir", images, "--json", "--no-sync",
        "--pause-between-rounds", "1h", "--threshold-pages", "0", "--target-downtime", "1us",
        "--control", socket,
      ] + options)
    _ = try #require(try dump.wait(for: "round"))
    return dump
  }

  private func ask(_ command: String) throws -> (status: Int32, answer: Event) {
    let outcome = try Memdump.run(["control", socket, command])
    return (outcome.status, try Event(try #require(outcome.out.first, "\(outcome.err)")))
  }

  private func expectRefusal(
    _ command: String, saying words: String, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let (status, answer) = try ask(command)
    #expect(status == 1, sourceLocation: sourceLocation)
    #expect(answer.name == "refused", sourceLocation: sourceLocation)
    let message: String = try #require(answer["message"], sourceLocation: sourceLocation)
    #expect(message.contains(words), "\(message)", sourceLocation: sourceLocation)
  }

  @Test("status says how far the dump is, and final takes the last round") func final() throws {
    let dump = try dump()
    let attributes = try FileManager.default.attributesOfItem(atPath: socket)
    #expect(attributes[.posixPermissions] as? Int == 0o600)
    let (status, answer) = try ask("status")
    #expect(status == 0)
    #expect(answer.name == "status")
    #expect(answer["phase"] == "live")
    #expect(answer["rounds_complete"] == 1)
    try expectRefusal("faster", saying: "status, final, abort")
    #expect(try ask("final").answer.name == "accepted")
    let end = try dump.finish()
    #expect([0, 3].contains(end.status), "\(end.err)")
    let events = try end.events()
    #expect(events.first { $0.name == "prediction" }?["reason"] == "requested")
    #expect(events.last?["rounds"] == 2)
    #expect(try Memdump.run(["restore-check", "-q", images]).status == 0)
    #expect(!FileManager.default.fileExists(atPath: socket))
    expectFree(workload.pid)
  }

  @Test("abort ends the dump: the process runs on, complete rounds are kept") func abort() throws {
    let dump = try dump()
    #expect(try ask("abort").answer.name == "accepted")
    #expect(try dump.finish().status == 130)
    #expect(try Memdump.run(["restore-check", "-q", images]).status == 13)
    expectFree(workload.pid)
    let late = try Memdump.run(["control", socket, "abort"])
    CommandTests.expectRefusal(late, 27, saying: "no dump answers")
  }

  @Test("what is too late, or was not to be, is refused") func refused() throws {
    let dump = try dump(["--no-final"])
    try expectRefusal("final", saying: "--no-final")
    dump.send(SIGTERM)
    #expect(try dump.finish().status == 143)
  }

  @Test("in the freeze it is too late") func late() throws {
    let hold = scratch.file("hold")
    let dump = try dump(["--on-frozen", "while [ ! -e \(hold) ]; do sleep 0.05; done"])
    #expect(try ask("final").status == 0)
    _ = try #require(try dump.wait(for: "prediction"))
    try expectRefusal("abort", saying: "too late")
    try expectRefusal("final", saying: "too late")
    #expect(try ask("status").answer["phase"] == "freezing")
    #expect(FileManager.default.createFile(atPath: hold, contents: nil))
    #expect([0, 3].contains(try dump.finish().status))
  }

  @Test("a client that says nothing, or too much, holds nobody up") func rude() throws {
    let dump = try dump()
    let mute = try Endpoint.unix(path: socket).connect(milliseconds: 1000)
    let loud = try Endpoint.unix(path: socket).connect(milliseconds: 1000)
    _ = try [UInt8](repeating: 0x61, count: 10_000).withUnsafeBytes { try loud.write($0) }
    #expect(try ask("status").status == 0)
    #expect(try ask("abort").status == 0)
    #expect(try dump.finish().status == 130)
    withExtendedLifetime((mute, loud)) {}
  }

  @Test("a socket that nobody listens at is replaced, one in use and other files are not")
  func stale() throws {
    let dump = try dump()
    let second = try Memdump.run([
      "predump", "--pid", "\(workload.pid)", "--images-dir", scratch.file("second"), "--control",
      socket,
    ])
    CommandTests.expectRefusal(second, 1, saying: "in use")
    dump.send(SIGKILL)
    _ = try dump.finish()
    #expect(FileManager.default.fileExists(atPath: socket))
    expectFree(workload.pid)
    try FileManager.default.removeItem(atPath: images)
    let third = try self.dump()
    #expect(try ask("abort").status == 0)
    #expect(try third.finish().status == 130)
    #expect(FileManager.default.createFile(atPath: socket, contents: Data([1])))
    let fourth = try Memdump.run([
      "predump", "--pid", "\(workload.pid)", "--images-dir", scratch.file("fourth"), "--control",
      socket,
    ])
    CommandTests.expectRefusal(fourth, 1, saying: "in use")
    #expect(try Data(contentsOf: URL(fileURLWithPath: socket)) == Data([1]))
  }

  @Test("no socket in a directory where others could replace it") func openDirectory() throws {
    let open = scratch.file("open")
    try FileManager.default.createDirectory(atPath: open, withIntermediateDirectories: false)
    chmod(open, 0o777)
    let outcome = try Memdump.run([
      "predump", "--pid", "\(workload.pid)", "--images-dir", images, "--control",
      "\(open)/control",
    ])
    CommandTests.expectRefusal(outcome, 1, saying: "a directory of your own")
    chmod(open, 0o1777)
    let sticky = try Memdump.run([
      "predump", "--pid", "\(workload.pid)", "--images-dir", images, "--no-sync", "--control",
      "\(open)/control",
    ])
    #expect([0, 3].contains(sticky.status), "\(sticky.err)")
  }
}
