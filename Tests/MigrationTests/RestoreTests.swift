import Foundation
import Images
import Kernel
import Migration
import Predump
import TestSupport
import Testing

/// Restores of a dumped process, with a real criu.
@Suite(.serialized, .enabled(if: DumpedTarget.hasCRIU)) struct RestoreTests {
  private static let plain = PageCompression.none
  private static let compressed = PageCompression.lz4(pagesPerBlock: 64, acceleration: 1)

  @Test(
    "every byte is right before the process runs, whoever fills its memory",
    arguments: [plain, compressed], [MemoryFilling.memdump, .criu])
  func fills(_ compression: PageCompression, _ filling: MemoryFilling) throws {
    let target = try DumpedTarget.ended(compression)
    var options = target.restoreOptions
    options.filling = filling
    options.arguments = ["--leave-stopped"]
    let restored = try Restore.run(options)
    #expect((restored.filledPages > 2048) == (filling == .memdump))
    #expect((restored.unpackedPages > 2048) == (filling == .criu && compression != .none))
    #expect(try target.differences() == [])
    kill(target.pid, SIGCONT)
    #expect(target.answer() == "ok")
    let left = try FileManager.default.contentsOfDirectory(atPath: target.images)
    #expect(!left.contains { $0.hasPrefix("restore-") })
  }

  @Test("a restore may begin before there is anything to restore")
  func startsEarly() throws {
    let started = Box<Restore>()
    let target = try DumpedTarget(.none) { (_, images) in
      var options = RestoreOptions(directory: images)
      options.criu = CRIUProgram(DumpedTarget.criuPath)
      started.value = try Restore(options)
    }
    var options = target.dumpOptions
    options.fate = .killed
    _ = try StateDump.run(options)
    let pid = try started.value.take()?.finish().pid
    #expect(pid == target.pid)
    #expect(target.answer() == "ok")
  }

  @Test("a restore that is not needed goes, and leaves nothing")
  func cancels() throws {
    let target = try DumpedTarget.ended(.none)
    try Restore(target.restoreOptions).cancel()
    #expect(target.state == nil || target.state == "Z")
    let left = try FileManager.default.contentsOfDirectory(atPath: target.images)
    #expect(!left.contains { $0.hasPrefix("restore-") })
  }

  @Test("a process whose memory cannot be filled is not left half filled")
  func unfillable() throws {
    let target = try DumpedTarget.ended(Self.compressed)
    // The middle of the file is of the arena, which CRIU does without.
    let file = try #require(FileHandle(forUpdatingAtPath: target.images + "/round-001/pages-1.img"))
    let length = try file.seekToEnd()
    try file.seek(toOffset: length * 2 / 5)
    try file.write(contentsOf: Data(repeating: 0xff, count: Int(length / 5)))
    var options = target.restoreOptions
    options.checks = false
    options.filling = .memdump
    #expect {
      try Restore.run(options)
    } throws: {
      if case .images(let error)? = $0 as? MigrationError {
        error.kind == .compressedBlock
      } else {
        false
      }
    }
    #expect(eventually { target.state == nil || target.state == "Z" })
  }

  @Test("images with a changed byte are not restored")
  func damaged() throws {
    let target = try DumpedTarget.ended(.none)
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

  @Test("criu restores from a merged directory")
  func merged() throws {
    let target = try DumpedTarget.ended(.none)
    let options = ChainMerge.Options(
      source: target.images, output: target.directory.file("merged"))
    _ = try ChainMerge.run(options)
    // CRIU's images over the merged directory instead of the rounds.
    let top = target.directory.file("top")
    let files = FileManager.default
    try files.copyItem(atPath: target.images + "/criu", toPath: top)
    try files.removeItem(atPath: top + "/parent")
    try files.createSymbolicLink(atPath: top + "/parent", withDestinationPath: "../merged")
    try files.removeItem(atPath: target.images)
    #expect(eventually { target.state == nil }, "its number is free")
    let criu = try ChildProgram(
      DumpedTarget.criuPath, ["restore", "-D", top, "-d", "-o", "restore.log"], lifetime: 60)
    #expect(criu.wait() == 0)
    #expect(target.answer() == "ok")
  }
}
