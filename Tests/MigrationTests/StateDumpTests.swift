import Foundation
import Images
import Kernel
import Migration
import Predump
import TestSupport
import Testing

/// CRIU's part of a dump, and its restore, with a real criu and a process that writes all the time.
@Suite(.serialized, .enabled(if: DumpedTarget.hasCRIU)) struct StateDumpTests {
  @Test(
    "what predump, criu-dump and restore make of a process has all its memory and runs",
    arguments: DumpedTarget.ways.map { (PageCompression.none, $0) }
      + [(.lz4(pagesPerBlock: 64, acceleration: 1), DumpedTarget.usualWay)])
  func restores(_ compression: PageCompression, _ omission: MemoryOmission) throws {
    let target = try DumpedTarget(compression)
    var options = target.dumpOptions
    options.fate = .killed
    options.omission = omission
    let dumped = try StateDump.run(options)
    #expect(dumped.omission == omission)
    if omission == .stream {
      #expect(dumped.droppedBytes > 2048 * 4096, "criu read the memory, and nobody kept it")
    }
    #expect(dumped.keptBytes < 1 << 20)
    #expect(ChainVerifier.verify(target.images + "/criu").verdict == .restorable)

    let restored = try Restore.run(target.restoreOptions)
    #expect(restored.pid == target.pid)
    #expect(target.state != "T", "it was stopped for the dump only, and is restored running")
    #expect(target.answer() == "ok")
  }

  @Test(
    "a criu that was started while the process ran dumps it once it is stopped, and not before")
  func startsEarly() throws {
    let started = Box<StateDump>()
    let target = try DumpedTarget(.none) { (pid, images) in
      var options = StateDumpOptions(directory: images)
      options.criu = CRIUProgram(DumpedTarget.criuPath)
      options.fate = .killed
      started.value = try StateDump(options, of: pid, includesDescendants: false)
    }
    #expect(target.state == "T")
    let dumped = try started.value.take()?.finish()
    #expect(dumped != nil)
    _ = try Restore.run(target.restoreOptions)
    #expect(target.answer() == "ok")
  }

  @Test("a criu that is named from here is found") func relative() throws {
    let target = try DumpedTarget(.none)
    let here = FileManager.default.currentDirectoryPath
    let path = here.split(separator: "/").map { _ in "../" }.joined() + DumpedTarget.criuPath
    var options = target.dumpOptions
    options.criu = CRIUProgram(path)
    options.fate = .killed
    _ = try StateDump.run(options)
    #expect(ChainVerifier.verify(target.images + "/criu").verdict == .restorable)
  }

  @Test("a criu that was started and is not needed goes, and the process knows nothing of it")
  func cancels() throws {
    let target = try DumpedTarget(.none)
    let dump = try StateDump(target.dumpOptions, of: target.pid, includesDescendants: false)
    dump.cancel()
    #expect(target.state == "T")
    #expect(!FileManager.default.fileExists(atPath: target.images + "/criu.partial"))
    kill(target.pid, SIGCONT)
    #expect(target.answer() == "ok")
  }

  @Test(
    "a process and its child are dumped and restored together",
    arguments: DumpedTarget.ways.map { ($0, $0 == .stream ? MemoryFilling.criu : .memdump) })
  func tree(_ omission: MemoryOmission, _ filling: MemoryFilling) throws {
    let target = try DumpedTarget(
      .none, includesDescendants: true, afterFirstRound: DumpedTarget.fork)
    let child = try #require(try ProcessTree.descendants(of: target.pid).first).pid
    var options = target.dumpOptions
    options.fate = .killed
    options.omission = omission
    _ = try StateDump.run(options)
    var restore = target.restoreOptions
    restore.filling = filling
    _ = try Restore.run(restore)
    #expect(target.answer() == "ok")
    #expect(target.answer(of: child) == "ok")
  }

  @Test(
    "the memory of a child that no round has is criu's to dump", arguments: MemoryFilling.allCases)
  func childOfCRIU(_ filling: MemoryFilling) throws {
    let target = try DumpedTarget(.none, afterFirstRound: DumpedTarget.fork)
    let child = try #require(try ProcessTree.descendants(of: target.pid).first).pid
    var options = target.dumpOptions
    options.fate = .killed
    #expect(
      try StateDump.run(options).omission
        == (DumpedTarget.usualWay == .lazy ? .stream : DumpedTarget.usualWay))
    var restore = target.restoreOptions
    restore.filling = filling
    _ = try Restore.run(restore)
    #expect(target.answer() == "ok")
    #expect(target.answer(of: child) == "ok")
  }

  @Test("memory that nobody would have is refused, and all run on")
  func lazyChild() throws {
    let target = try DumpedTarget(.none, afterFirstRound: DumpedTarget.fork)
    let child = try #require(try ProcessTree.descendants(of: target.pid).first).pid
    var options = target.dumpOptions
    options.fate = .killed
    options.omission = .lazy
    #expect {
      try StateDump.run(options)
    } throws: {
      if case .images(let error)? = $0 as? MigrationError { error.kind == .lazyPage } else { false }
    }
    #expect(!FileManager.default.fileExists(atPath: target.images + "/criu"))
    #expect(target.answer() == "ok")
    #expect(target.answer(of: child) == "ok")
  }

  @Test(
    "the process stays stopped or runs on as asked, with all its memory right",
    arguments: DumpedTarget.ways)
  func leaves(_ omission: MemoryOmission) throws {
    let target = try DumpedTarget(.none)
    var options = target.dumpOptions
    options.omission = omission
    _ = try StateDump.run(options)
    #expect(target.state == "T")
    try FileManager.default.removeItem(atPath: target.images + "/criu")
    options.fate = .running
    _ = try StateDump.run(options)
    #expect(target.state != "T")
    #expect(target.answer() == "ok")
  }

  @Test("a process whose end is declined runs on", arguments: DumpedTarget.ways)
  func declined(_ omission: MemoryOmission) throws {
    let target = try DumpedTarget(.none)
    var options = target.dumpOptions
    options.omission = omission
    options.fate = .decided(by: "exit 7")
    #expect {
      try StateDump.run(options)
    } throws: {
      if case .declined(_, let end)? = $0 as? MigrationError { end.contains("7") } else { false }
    }
    #expect(target.state != "T")
    #expect(target.answer() == "ok")
  }

  @Test("a page that no round has is found, and the process runs on", arguments: DumpedTarget.ways)
  func ranOn(_ omission: MemoryOmission) throws {
    let target = try DumpedTarget(.none)
    var options = target.dumpOptions
    options.omission = omission
    options.fate = .running
    // It drops pages and writes them anew: sooner or later it has one that it had not.
    let isFound = try eventually {
      kill(target.pid, SIGCONT)
      try #require(target.answer() == "ok")
      kill(target.pid, SIGSTOP)
      try #require(eventually { target.state == "T" })
      do throws(MigrationError) { _ = try StateDump.run(options) } catch {
        guard case .images(let error) = error, error.kind == .parentPage else { throw error }
        return true
      }
      try FileManager.default.removeItem(atPath: target.images + "/criu")
      return false
    }
    #expect(isFound)
    #expect(!FileManager.default.fileExists(atPath: target.images + "/criu"))
    #expect(target.answer() == "ok")
  }

  @Test("tracking that the kernel has not is refused, and nothing was done to the process")
  func lacksSoftDirty() throws {
    let target = try DumpedTarget(.none)
    var options = target.dumpOptions
    options.omission = .softDirty
    if try SoftDirty.isTracked() {
      #expect(try StateDump.run(options).omission == .softDirty)
      try FileManager.default.removeItem(atPath: target.images + "/criu")
    } else {
      #expect {
        try StateDump.run(options)
      } throws: {
        if case .process(.unsupportedKernel)? = $0 as? MigrationError { true } else { false }
      }
    }
    #expect(target.state == "T")
    options.omission = .automatic
    options.fate = .running
    _ = try StateDump.run(options)
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

  @Test(
    "a process runs on when memdump is killed while its end is being decided",
    arguments: DumpedTarget.ways)
  func killed(_ omission: MemoryOmission) throws {
    let target = try DumpedTarget(.none)
    let memdump = try ChildProgram(
      productsDirectory.appendingPathComponent("memdump").path,
      [
        "criu-dump", target.images, "--criu", DumpedTarget.criuPath, "--omit", omission.rawValue,
        "--decide",
        "kill -KILL $PPID; sleep 1",
      ])
    #expect(memdump.wait() == SIGKILL)
    #expect(eventually { target.state != "T" && target.state != "t" })
    #expect(target.answer() == "ok")
  }

  @Test("a criu that has been started and waits goes when memdump is killed, and does nothing")
  func killedEarly() throws {
    let target = try DumpedTarget(.none)
    try killEarly(target, "criu-dump", ["--leave", "killed"])
    let place = target.images + "/criu.partial"
    let written = try FileManager.default.contentsOfDirectory(atPath: place)
    #expect(!written.contains { $0.hasSuffix(".img") }, "\(written)")
    // Stopped as predump has left it, or, if memdump came so far before it was stopped, let go.
    kill(target.pid, SIGCONT)
    #expect(target.answer() == "ok")

    let dumped = try DumpedTarget.ended(.none)
    try killEarly(dumped, "restore", [])
    #expect(kill(dumped.pid, 0) != 0)
    _ = try Restore.run(dumped.restoreOptions)
    #expect(dumped.answer() == "ok")
  }

  /// Kills memdump when it has started criu and done nothing more.
  private func killEarly(_ target: DumpedTarget, _ command: String, _ options: [String]) throws {
    let scratch = try TemporaryDirectory()
    let (script, started) = (scratch.file("starts-criu"), scratch.file("started"))
    let path = URL(fileURLWithPath: DumpedTarget.criuPath).path
    try """
    #!/bin/sh
    case "$1" in
    dump | restore)
      kill -STOP $PPID
      echo $$ > \(started).new && mv \(started).new \(started)
      ;;
    esac
    exec \(path) "$@"

    """.write(toFile: script, atomically: true, encoding: .utf8)
    chmod(script, 0o755)
    let memdump = try ChildProgram(
      productsDirectory.appendingPathComponent("memdump").path,
      [command, target.images, "--criu", script] + options)
    var criu: Int32?
    let isThere = eventually {
      let text = (try? String(contentsOfFile: started, encoding: .utf8)) ?? ""
      criu = Int32(text.prefix { $0.isNumber })
      if criu == nil { return false }
      // Without anything to restore yet it waits as soon as it has its log.
      return command == "restore"
        ? FileManager.default.fileExists(atPath: target.images + "/criu-restore.log")
        : Self.gateWaits(in: target.images)
    }
    try #require(isThere)
    kill(memdump.pid, SIGKILL)
    #expect(memdump.wait() == SIGKILL)
    let number = try #require(criu)
    #expect(eventually { kill(number, 0) != 0 }, "criu goes")
  }

  /// Whether a gate of a criu that dumps into `images` waits for memdump's answer.
  private static func gateWaits(in images: String) -> Bool {
    let files = FileManager.default
    let names = (try? files.contentsOfDirectory(atPath: "/proc")) ?? []
    return names.contains { name in
      let line = (try? String(contentsOfFile: "/proc/\(name)/cmdline", encoding: .utf8)) ?? ""
      let place = (try? files.destinationOfSymbolicLink(atPath: "/proc/\(name)/cwd")) ?? ""
      let answers = (try? files.destinationOfSymbolicLink(atPath: "/proc/\(name)/fd/3")) ?? ""
      return line.contains("memdump-gate") && place.hasPrefix(images) && answers.hasPrefix("pipe:")
    }
  }

  @Test("a process that runs is refused, and runs on")
  func running() throws {
    let target = try DumpedTarget(.none)
    kill(target.pid, SIGCONT)
    #expect(eventually { target.state != "T" })
    #expect {
      try StateDump.run(target.dumpOptions)
    } throws: {
      if case .notStopped? = $0 as? MigrationError { true } else { false }
    }
    #expect(target.answer() == "ok")
  }
}
