import Foundation
import TestSupport
import Testing

/// One directory of a chain.
@Suite(.serialized) struct MergeTests {
  private let scratch: TemporaryDirectory
  private var images: String { scratch.file("images") }
  private var merged: String { scratch.file("merged") }

  init() throws { scratch = try TemporaryDirectory() }

  private func dump(_ workload: Workload, _ more: String...) throws {
    let outcome = try Memdump.run(
      ["predump", "--pid", "\(workload.pid)", "--images-dir", images, "--no-sync"] + more)
    #expect([0, 3].contains(outcome.status), "\(outcome.err)")
  }

  @Test(
    "a merged chain holds every byte of the frozen process, in one directory without a parent",
    arguments: [["lz4", "none"], ["lz4", "lz4"], ["none", "none"], ["none", "lz4"]])
  func whole(formats: [String]) throws {
    let workload = try Workload("hostile", ["seed=7", "threads=2"])
    try dump(workload, "--compress", formats[0], "--leave", "stopped", "--max-rounds", "4")
    let outcome = try Memdump.run(
      ["merge", images, merged, "--compress", formats[1], "--json", "--no-sync"])
    #expect(outcome.status == 0, "\(outcome.err)")
    let event = try #require(try outcome.events().last)
    #expect(event.name == "merge")
    #expect((event["rounds"] ?? 0) >= 2)
    let check = try Memdump.run(["restore-check", "--json", "--pid", "\(workload.pid)", merged])
    #expect(check.status == 0, "\(check.out) \(check.err)")
    let live: [String: Any] = try #require(try check.events().first?["live"])
    #expect(live["equal"] as? Bool == true)
    let names = try FileManager.default.contentsOfDirectory(atPath: merged)
    #expect(!names.contains("parent"))
    let inspect = try Memdump.run(["inspect", "--json", merged])
    let rounds: [[String: Any]] = try #require(try inspect.events().first?["rounds"])
    #expect(rounds.count == 1)
    #expect(rounds.first?["pages_from_parent"] as? Int == 0)
    kill(workload.pid, SIGCONT)
  }

  @Test("a chain without a final round stays one that cannot be restored") func live() throws {
    let workload = try Workload("stamp", ["pages=512", "rate=200"])
    try dump(workload, "--no-final")
    #expect(try Memdump.run(["merge", images, merged]).status == 13)
    #expect(try Memdump.run(["restore-check", merged]).status == 13)
  }

  @Test("of a damaged chain nothing is merged") func damage() throws {
    let workload = try Workload("stamp", ["pages=512", "rate=200"])
    try dump(workload)
    let pages = URL(fileURLWithPath: images + "/round-001/pages-1.img")
    var bytes = try Data(contentsOf: pages)
    bytes[bytes.count / 2] ^= 1
    try bytes.write(to: pages)
    expectRefusal(try Memdump.run(["merge", images, merged]), 12)
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == ["images"])
  }

  @Test("what is there is not merged into") func places() throws {
    let workload = try Workload("stamp", ["pages=64", "rate=200"])
    try dump(workload)
    expectRefusal(try Memdump.run(["merge", images, images + "/round-009"]), 26)
    expectRefusal(try Memdump.run(["merge", images, scratch.file("no/such/place")]), 26)
    try FileManager.default.createDirectory(
      atPath: merged, withIntermediateDirectories: false)
    expectRefusal(try Memdump.run(["merge", images, merged]), 26)
    expectRefusal(try Memdump.run(["merge", scratch.file("nothing"), merged + "2"]), 10)
    #expect(try Memdump.run(["restore-check", images]).status == 0)
  }
}
