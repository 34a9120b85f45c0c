import Foundation
import Kernel
import SystemPackage
import TestSupport
import Testing

@Suite(.serialized) struct ProcessMemoryTests {
  private let page = Int(pageBytes)

  /// Four pages of 7, the third of them made unreadable by `spoil`.
  private func readSpoilt(_ spoil: (UnsafeMutableRawPointer) -> Int32) throws -> (
    fromStart: ProcessMemory.ReadResult, fromHole: ProcessMemory.ReadResult, bytes: [UInt8]
  ) {
    let address = try #require(
      mmap(nil, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
    // With its hole still in it: nothing here maps memory meanwhile.
    defer { munmap(address, 4 * page) }
    memset(address, 7, 4 * page)
    try #require(spoil(address + 2 * page) == 0)
    let memory = ProcessMemory(file: try ThisThread.open("mem"))
    let start = UInt64(UInt(bitPattern: address))
    var bytes = [UInt8](repeating: 0, count: 4 * page)
    let first = try bytes.withUnsafeMutableBytes { try memory.readPages(at: start, into: $0) }
    var other = [UInt8](repeating: 0, count: 2 * page)
    let second = try other.withUnsafeMutableBytes {
      try memory.readPages(at: start + 2 * pageBytes, into: $0)
    }
    return (first, second, bytes)
  }

  @Test("a read ends at a guard page and tells how many pages it got")
  func guardPage() throws {
    let guardInstall: Int32 = 102  // MADV_GUARD_INSTALL
    let read = try readSpoilt { madvise($0, page, guardInstall) }
    #expect(read.fromStart == .pages(2))
    #expect(read.fromHole == .pages(0))
    #expect(read.bytes[..<(2 * page)].allSatisfy { $0 == 7 })
    #expect(read.bytes[(2 * page)...].allSatisfy { $0 == 0 })
  }

  @Test("a read ends beyond a file's end and tells how many pages it got")
  func beyondEndOfFile() throws {
    let path = "/var/tmp/memdump-empty-\(getpid())"
    let empty = open(path, O_RDWR | O_CREAT | O_TRUNC, 0o600)
    try #require(empty >= 0 && unlink(path) == 0)
    defer { close(empty) }
    let read = try readSpoilt { place in
      mmap(place, page, PROT_READ, MAP_PRIVATE | MAP_FIXED, empty, 0) == place ? 0 : -1
    }
    #expect(read.fromStart == .pages(2))
    #expect(read.fromHole == .pages(0))
  }

  @Test("memory that the process itself may not read is read")
  func inaccessible() throws {
    let read = try readSpoilt { mprotect($0, page, PROT_NONE) }
    #expect(read.fromStart == .pages(4))
    #expect(read.bytes.allSatisfy { $0 == 7 })
  }

  @Test("another process's memory is read, and its unmapped memory is not")
  func otherProcess() throws {
    let target = try Workload("idle", ["pages=4"])
    let memory = ProcessMemory(
      file: try TargetProcess(pid: target.pid).open("mem"))
    var bytes = [UInt8](repeating: 0, count: 4 * page)
    let arena = try target.number("arena")
    #expect(
      try bytes.withUnsafeMutableBytes { try memory.readPages(at: arena, into: $0) } == .pages(4))
    #expect(bytes.contains { $0 != 0 })
    #expect(try bytes.withUnsafeMutableBytes { try memory.readPages(at: 0, into: $0) } == .pages(0))
    #expect(throws: KernelError.self) {
      try bytes.withUnsafeMutableBytes { try memory.read(at: 4096, into: $0) }
    }
  }

  @Test("after execve the old memory is gone, not zero")
  func afterExec() throws {
    let target = try Workload("execer", ["bytes=1M", "threads=0"])
    let process = try TargetProcess(pid: target.pid)
    let memory = ProcessMemory(file: try process.open("mem"))
    let arena = try target.number("arena")
    var bytes = [UInt8](repeating: 0, count: page)
    #expect(
      try bytes.withUnsafeMutableBytes { try memory.readPages(at: arena, into: $0) } == .pages(1))
    target.program.send("exec")
    _ = try #require(target.program.line(beginning: "ready "))
    #expect(
      try bytes.withUnsafeMutableBytes { try memory.readPages(at: arena, into: $0) }
        == .addressSpaceGone)
    target.program.end()
  }
}
