import Foundation
import TestSupport
import Testing

/// Images directories that memdump must refuse, or that fill up under it.
@Suite(.serialized) struct DirectoryTests {
  private let scratch: Scratch
  private let workload: Workload

  init() throws {
    scratch = try Scratch()
    workload = try Workload("stamp", "pages=4096")
  }

  private func predump(_ directory: String) throws -> Memdump.Outcome {
    try Memdump.run(["predump", "--pid", "\(workload.pid)", "--images-dir", directory])
  }

  @Test(
    "a file system that is too small",
    .enabled(if: Scratch.canMount, "mounting a tmpfs is not permitted here"))
  func full() throws {
    let place = try #require(try scratch.mount("small", options: "size=2m"))
    expectRefusal(try predump(place + "/images"), 25)
    expectFree(workload.pid)
    try expectNothingWhole(place + "/images")
  }

  @Test(
    "a read-only file system",
    .enabled(if: Scratch.canMount, "mounting a tmpfs is not permitted here"))
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
