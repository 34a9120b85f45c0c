import Foundation
import Images
import Migration
import TestSupport
import Testing

/// CRIU's part of a dump, and its restore, with a real criu and a process that writes all the time.
@Suite(.serialized, .enabled(if: DumpedTarget.hasCRIU)) struct StateDumpTests {
  @Test(
    "what predump, criu-dump and restore make of a process has all its memory and runs",
    arguments: [PageCompression.none, .lz4(pagesPerBlock: 64, acceleration: 1)])
  func restores(_ compression: PageCompression) throws {
    let target = try DumpedTarget(compression)
    var options = target.dumpOptions
    options.fate = .killed
    let dumped = try StateDump.run(options)
    #expect(dumped.droppedBytes > 2048 * 4096, "criu read the memory, and nobody kept it")
    #expect(dumped.keptBytes < 1 << 20)
    #expect(ChainVerifier.verify(target.images + "/criu").verdict == .restorable)

    let restored = try Restore.run(target.restoreOptions)
    #expect(restored.pid == target.pid)
    #expect((restored.unpackedPages > 0) == (compression != .none))
    #expect(target.state != "T", "it was stopped for the dump only, and is restored running")
    #expect(target.answer() == "ok")
  }

  @Test("the process stays stopped or runs on as asked, with all its memory right")
  func leaves() throws {
    let target = try DumpedTarget(.none)
    _ = try StateDump.run(target.dumpOptions)
    #expect(target.state == "T")
    kill(target.pid, SIGCONT)
    #expect(target.answer() == "ok")
  }

  @Test("a process whose end is declined runs on")
  func declined() throws {
    let target = try DumpedTarget(.none)
    var options = target.dumpOptions
    options.fate = .decided(by: "exit 7")
    #expect {
      try StateDump.run(options)
    } throws: {
      if case .declined(_, let end)? = $0 as? MigrationError { end.contains("7") } else { false }
    }
    #expect(target.state != "T")
    #expect(target.answer() == "ok")
  }

  @Test("a process runs on when criu cannot dump it")
  func refused() throws {
    let target = try DumpedTarget(.none)
    var options = target.dumpOptions
    options.arguments = ["--no-such-option"]
    #expect(throws: MigrationError.self) { try StateDump.run(options) }
    #expect(target.answer() == "ok")
    #expect(!FileManager.default.fileExists(atPath: target.images + "/criu"))
  }

  @Test("a process runs on when memdump is killed while its end is being decided")
  func killed() throws {
    let target = try DumpedTarget(.none)
    let memdump = try ChildProgram(
      productsDirectory.appendingPathComponent("memdump").path,
      [
        "criu-dump", target.images, "--criu", DumpedTarget.criuPath, "--decide",
        "kill -KILL $PPID; sleep 1",
      ])
    #expect(memdump.wait() == SIGKILL)
    #expect(DumpedTarget.eventually { target.state != "T" && target.state != "t" })
    #expect(target.answer() == "ok")
  }

  @Test("a process that runs is refused, and runs on")
  func running() throws {
    let target = try DumpedTarget(.none)
    kill(target.pid, SIGCONT)
    #expect(DumpedTarget.eventually { target.state != "T" })
    #expect {
      try StateDump.run(target.dumpOptions)
    } throws: {
      if case .notStopped? = $0 as? MigrationError { true } else { false }
    }
    #expect(target.answer() == "ok")
  }

  @Test("images with a changed byte are not restored")
  func damaged() throws {
    let target = try DumpedTarget(.none)
    var options = target.dumpOptions
    options.fate = .killed
    _ = try StateDump.run(options)
    let file = FileHandle(forUpdatingAtPath: target.images + "/round-001/pages-1.img")
    try #require(file != nil)
    try file?.seek(toOffset: 5000)
    try file?.write(contentsOf: Data([0xff, 0x01]))
    try file?.close()
    #expect {
      try Restore.run(target.restoreOptions)
    } throws: {
      if case .notRestorable? = $0 as? MigrationError { true } else { false }
    }
  }
}
