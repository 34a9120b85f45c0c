import Foundation
import Predump
import TestSupport
import Testing

@Suite(.serialized) struct DestinationTests {
  /// Looks for room on a file system of `size` for a process of 16 MiB.
  private func check(size: String, name: String = "images") throws -> CheckReport {
    let path = "/var/tmp/memdump-destination-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
    try #require(mkdir(path, 0o700) == 0)
    defer { rmdir(path) }
    try #require(mount("tmpfs", path, "tmpfs", 0, "size=\(size)") == 0)
    defer { umount(path) }
    let target = try Workload("idle", ["pages=4096"])
    return GroundCheck.run(pid: target.pid, imagesDirectory: "\(path)/\(name)")
  }

  @Test("a full file system is out of space before anything is stopped")
  func full() throws {
    let report = try check(size: "512K")
    #expect(report.items.last?.id == "destination.space")
    #expect(report.items.last?.status == .missing)
    guard case .outOfSpace = report.failure else {
      Issue.record("\(String(describing: report.failure))")
      return
    }
  }

  @Test("less space than memory is a warning: images are compressed")
  func tight() throws {
    let report = try check(size: "4M")
    #expect(report.items.last?.status == .warning)
    #expect(report.failure == nil)
  }

  @Test("a directory that does not exist yet counts as where it will be")
  func roomy() throws {
    let report = try check(size: "256M")
    #expect(report.items.last?.status == .ok)
    #expect(report.items.last?.detail.hasPrefix("256.0 MiB free") ?? false)
  }

  @Test("a directory whose parent does not exist is unusable")
  func noParent() throws {
    let report = try check(size: "256M", name: "missing/images")
    guard case .imagesDirectory(let path, _) = report.failure else {
      Issue.record("\(String(describing: report.failure))")
      return
    }
    #expect(path.hasSuffix("missing/images"))
  }
}
