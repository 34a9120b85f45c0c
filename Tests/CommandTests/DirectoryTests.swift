import Foundation
import TestSupport
import Testing

/// Images directories that memdump must refuse, or that fill up under it.
@Suite(.serialized) struct DirectoryTests {
  private let scratch: TemporaryDirectory
  private let workload: Workload

  init() throws {
    scratch = try TemporaryDirectory()
    workload = try Workload("stamp", ["pages=4096"])
  }

  private func predump(_ directory: String) throws -> Memdump.Outcome {
    try Memdump.run(["predump", "--pid", "\(workload.pid)", "--images-dir", directory])
  }

  @Test(
    "a file system that is much too small, and one that is full in the first round",
    .enabled(if: TemporaryDirectory.canMount, "mounting a tmpfs is not permitted here"),
    arguments: ["64k", "6m"])
  func full(size: String) throws {
    let place = try #require(try scratch.mount("small", options: "size=\(size)"))
    expectRefusal(try predump(place + "/images"), 25)
    expectFree(workload.pid)
    try expectNothingWhole(place + "/images")
  }

  @Test(
    "a file system that is full in a later round keeps the rounds before",
    .enabled(if: TemporaryDirectory.canMount, "mounting a tmpfs is not permitted here"))
  func fullLater() throws {
    let place = try #require(try scratch.mount("small", options: "size=14m")) + "/images"
    let busy = try Workload("stamp", ["pages=4096", "rate=max", "cold=100"])
    let outcome = try Memdump.run([
      "predump", "--pid", "\(busy.pid)", "--images-dir", place, "--json", "--target-downtime",
      "1us", "--threshold-pages", "0", "--max-rounds", "1000", "--min-shrink", "0",
    ])
    expectRefusal(outcome, 25, saying: "kept in \(place)")
    #expect(try outcome.events().contains { $0.name == "round" })
    expectFree(busy.pid)
    try expectNothingWhole(place)
    #expect(try Memdump.run(["restore-check", "-q", place]).status == 13)
  }

  @Test(
    "a read-only file system",
    .enabled(if: TemporaryDirectory.canMount, "mounting a tmpfs is not permitted here"))
  func readOnly() throws {
    let place = try #require(try scratch.mount("fixed", options: "size=1m", readOnly: true))
    expectRefusal(try predump(place), 26, saying: "read-only")
    expectRefusal(try predump(place + "/images"), 26, saying: "read-only")
    expectFree(workload.pid)
  }

  @Test("a symbolic link") func link() throws {
    let real = scratch.file("real")
    try FileManager.default.createDirectory(atPath: real, withIntermediateDirectories: false)
    let link = scratch.file("link")
    try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: real)
    expectRefusal(try predump(link), 26, saying: "symbolic link")
    expectFree(workload.pid)
    #expect(try FileManager.default.contentsOfDirectory(atPath: real).isEmpty)
  }

  @Test("a directory that is not empty") func occupied() throws {
    let place = scratch.file("images")
    try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: false)
    try Data("mine".utf8).write(to: URL(fileURLWithPath: place + "/note"))
    expectRefusal(try predump(place), 26, saying: "not empty")
    expectFree(workload.pid)
    #expect(try FileManager.default.contentsOfDirectory(atPath: place) == ["note"])
  }

  @Test("a file, and a place without a parent") func nowhere() throws {
    let file = scratch.file("file")
    try Data().write(to: URL(fileURLWithPath: file))
    expectRefusal(try predump(file), 26)
    expectRefusal(try predump(scratch.file("no/such/place")), 26, saying: "no/such")
    expectFree(workload.pid)
  }

  @Test("the same directory a second time") func again() throws {
    let place = scratch.file("images")
    #expect(try predump(place).status == 0)
    expectRefusal(try predump(place), 26, saying: "not empty")
    #expect(try Memdump.run(["restore-check", place]).status == 0)
  }
}
