import Foundation
import Images
import Kernel
import Migration
import Predump
import TestSupport
import Testing

/// Restores of a process that runs before its memory is there, and drops, moves and forks it
/// meanwhile.
@Suite(.serialized, .enabled(if: DumpedTarget.hasCRIU)) struct LazyRestoreTests {
  /// So much that the process does many things before all of it is there (128 MiB).
  private static let pages = 32768

  @Test(
    "a process that runs meanwhile, and its child, end with all their memory",
    arguments: [PageCompression.none, .lz4(pagesPerBlock: 64, acceleration: 1)])
  func runs(_ compression: PageCompression) throws {
    let target = try DumpedTarget.ended(compression, pages: Self.pages)
    defer {
      for child in (try? ProcessTree.descendants(of: target.pid)) ?? [] { kill(child.pid, SIGKILL) }
    }
    var options = target.restoreOptions
    options.isLazy = true
    let restored = try Restore.run(options) { summary in
      #expect(summary.pid == target.pid)
      kill(target.pid, SIGUSR2)
    }
    #expect(restored.filledPages >= UInt64(Self.pages))
    #expect(restored.waitedPages > 0, "it ran while memory was missing")
    #expect(target.answer() == "ok")
    let child = try #require(
      eventually { (try? ProcessTree.descendants(of: target.pid).count) == 1 }
        ? ProcessTree.descendants(of: target.pid).first : nil)
    #expect(target.answer(of: child.pid) == "ok", "the child")
    // Nothing ties them to us any more.
    for pid in [target.pid, child.pid] {
      let flags = VMAFlags.parse(smaps: try TargetProcess(pid: pid).read("smaps"))
      #expect(eventually { !flags.values.contains { $0.contains(.userfaultMissing) } })
    }
  }

  @Test("a process whose memory turns out to be damaged is killed, not left with zeros")
  func unfillable() throws {
    let target = try DumpedTarget.ended(
      .lz4(pagesPerBlock: 64, acceleration: 1), pages: Self.pages)
    let file = try #require(FileHandle(forUpdatingAtPath: target.images + "/round-001/pages-1.img"))
    let length = try file.seekToEnd()
    try file.seek(toOffset: length * 2 / 5)
    try file.write(contentsOf: Data(repeating: 0xff, count: Int(length / 5)))
    var options = target.restoreOptions
    options.checks = false
    options.isLazy = true
    #expect {
      try Restore.run(options)
    } throws: {
      if case .incomplete? = $0 as? MigrationError { true } else { false }
    }
    #expect(eventually { target.state == nil || target.state == "Z" })
  }

  @Test("a process is killed if memdump dies while it lacks memory")
  func abandoned() throws {
    let target = try DumpedTarget.ended(.none, pages: Self.pages)
    let memdump = try MoveProgram(
      [
        MoveProgram.path, "restore", target.images, "--lazy", "--json", "--criu",
        DumpedTarget.criuPath,
      ], errors: target.directory.file("restore.err"))
    #expect(memdump.wait(for: "restore"), "\(memdump.errorText)")
    for polite in [SIGINT, SIGTERM, SIGHUP] { memdump.send(polite) }
    memdump.send(SIGSTOP)
    let flags = VMAFlags.parse(smaps: try TargetProcess(pid: target.pid).read("smaps"))
    try #require(flags.values.contains { $0.contains(.userfaultMissing) }, "all is there already")
    memdump.send(SIGKILL)
    #expect(eventually { target.state == nil || target.state == "Z" })
  }
}
