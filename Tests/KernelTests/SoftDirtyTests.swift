import Foundation
import Kernel
import TestSupport
import Testing

/// On kernels with soft-dirty tracking, and on those without it.
@Suite(.serialized) struct SoftDirtyTests {
  /// Bit 55 of what `/proc/self/pagemap` says of a page that was just written.
  private func isMarked() throws -> Bool {
    let page = Int(pageBytes)
    let address = try #require(
      mmap(nil, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
    defer { munmap(address, page) }
    address.storeBytes(of: 7, as: UInt8.self)
    let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: "/proc/self/pagemap"))
    try file.seek(toOffset: UInt64(UInt(bitPattern: address)) / pageBytes * 8)
    let bytes = try #require(try file.read(upToCount: 8))
    return bytes.count == 8 && bytes[6] & 0x80 != 0
  }

  @Test("the tracking is found exactly where the kernel marks written pages")
  func found() throws {
    #expect(try SoftDirty.isTracked() == isMarked())
  }

  @Test("marks are lent until somebody takes them away, and only where there are any")
  func lends() throws {
    let target = try Workload("idle", ["pages=64"])
    let process = try TargetProcess(pid: target.pid)
    let isThere = try isMarked()
    print("soft-dirty tracking: \(isThere ? "there" : "not there")")
    var isLent = process.lendsSoftDirty()
    #expect(isLent == isThere)
    if isThere {
      try process.clearSoftDirty()
      isLent = process.lendsSoftDirty()
      #expect(!isLent)
    }
  }
}
