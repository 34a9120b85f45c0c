import Foundation
import Kernel
import Migration
import TestSupport
import Testing

/// Whole migrations between two pid namespaces, with a real criu and a process of several threads
/// that writes all the time.
@Suite(.serialized, .enabled(if: Machine.isAvailable)) struct MigrateTests {
  private let machine: Machine
  private let target: MovingTarget

  init() throws {
    machine = try Machine()
    target = try MovingTarget(machine)
  }

  @Test(
    "a process runs there with all its memory, and has ended here",
    arguments: [("auto", MemoryOmission.automatic), ("lz4", .stream)])
  func moves(format: String, omission: MemoryOmission) throws {
    let (receiver, place) = try target.receiver()
    let migration = try target.migration(
      to: place, ["--compress", format, "--omit", omission.rawValue])
    let status = migration.finish()
    #expect([0, 3].contains(status), "\(migration.errorText)")
    #expect(receiver.finish() == 0, "\(receiver.errorText)")
    target.expectThere("moved")
    let summary = try #require(migration.events("migrated").first)
    let parts = [
      "freeze_ns", "copy_ns", "send_round_ns", "criu_dump_ns", "transfer_ns", "restore_ns",
      "commit_ns",
    ].map { summary[$0] as? UInt64 ?? 0 }
    #expect(parts.allSatisfy { $0 > 0 })
    #expect(parts.reduce(0, +) == summary["frozen_ns"] as? UInt64)
    let expected = omission == .automatic ? DumpedTarget.usualWay : omission
    #expect(summary["omission"] as? String == expected.rawValue)
    #expect(target.notes.isEmpty)
  }

  @Test("tracking that the kernel has not is refused before anything is touched")
  func omitsBySoftDirty() throws {
    let (receiver, place) = try target.receiver()
    let migration = try target.migration(to: place, ["--omit", "soft-dirty"])
    if try SoftDirty.isTracked() {
      #expect([0, 3].contains(migration.finish()), "\(migration.errorText)")
      #expect(receiver.finish() == 0, "\(receiver.errorText)")
      target.expectThere("moved")
    } else {
      #expect(migration.finish() == 22)
      #expect(migration.errorText.contains("CONFIG_MEM_SOFT_DIRTY"), "\(migration.errorText)")
      #expect(migration.events("attached").isEmpty)
      target.expectHere("refused")
    }
  }

  @Test("a process runs there before its memory is in place, and ends with all of it")
  func movesLazily() throws {
    let (receiver, place) = try target.receiver(["--lazy"])
    let migration = try target.migration(to: place)
    #expect([0, 3].contains(migration.finish()), "\(migration.errorText)")
    #expect(receiver.finish() == 0, "\(receiver.errorText)")
    target.expectThere("moved lazily")
    #expect(receiver.events("restored").count == 1)
    let filled = try #require(receiver.events("filled").first)
    #expect(filled["pages"] as? UInt64 ?? 0 >= 1024)
  }

  @Test("a process moves over TLS, past somebody who may not send one") func movesSecured() throws {
    let ours = try Certificates(in: target.directory.path, authority: "ours")
    let theirs = try Certificates(in: target.directory.path, authority: "theirs")
    for name in ["here", "there"] { try ours.sign(name) }
    try theirs.sign("stranger")
    let (receiver, place) = try target.receiver(ours.options("there"), at: "tls:127.0.0.1:0")
    let stranger = try target.migration(
      to: place, theirs.options("stranger", authority: ours.authority))
    #expect(stranger.finish() == 27, "\(stranger.errorText)")
    target.expectHere("turned away", isClean: false)
    let migration = try target.migration(to: place, ours.options("here"))
    #expect([0, 3].contains(migration.finish()), "\(migration.errorText)")
    #expect(receiver.finish() == 0, "\(receiver.errorText)")
    target.expectThere("moved over TLS")
  }

  @Test("criu fails on the dump: the process runs on here") func badDump() throws {
    let (receiver, place) = try target.receiver()
    let migration = try target.migration(to: place, criu: ["--no-such-option"])
    #expect(migration.finish() == 1)
    #expect(migration.errorText.contains("criu dump ended"), "\(migration.errorText)")
    #expect(migration.errorText.contains("runs on here"))
    #expect(receiver.finish() != 0)
    #expect(receiver.errorText.contains("the process does not run here"))
    target.expectHere("bad option")
  }

  @Test("criu fails on the restore: the process runs on here") func badRestore() throws {
    let (receiver, place) = try target.receiver(criu: ["--no-such-option"])
    let migration = try target.migration(to: place)
    #expect(migration.finish() == 1)
    #expect(migration.errorText.contains("criu restore"), "\(migration.errorText)")
    #expect(receiver.finish() == 1)
    target.expectHere("bad option")
  }

  @Test("a command that fails ends a migration that can still be ended") func vetoes() throws {
    for (here, there) in [("dumped", ""), ("", "pre-restore")] {
      let (receiver, place) = try target.receiver([
        "--on-event", "[ $MEMDUMP_EVENT != '\(there)' ]",
      ])
      let migration = try target.migration(
        to: place, ["--on-event", "[ $MEMDUMP_EVENT != '\(here)' ]"])
      #expect(migration.finish() == (here.isEmpty ? 1 : 28), "\(migration.errorText)")
      #expect(receiver.finish() == (here.isEmpty ? 28 : 1), "\(receiver.errorText)")
      target.expectHere("\(here)\(there)")
      try FileManager.default.removeItem(atPath: target.images)
    }
  }

  @Test("commands are told of every event, in their order") func hooks() throws {
    let (heardHere, heardThere) = (
      target.directory.file("here"), target.directory.file("there")
    )
    let (receiver, place) = try target.receiver([
      "--on-event", "echo $MEMDUMP_EVENT $MEMDUMP_PID >> \(heardThere)",
    ])
    let migration = try target.migration(
      to: place, ["--on-event", "echo $MEMDUMP_EVENT $MEMDUMP_PID >> \(heardHere)"])
    #expect([0, 3].contains(migration.finish()), "\(migration.errorText)")
    #expect(receiver.finish() == 0, "\(receiver.errorText)")
    let here = try String(contentsOfFile: heardHere, encoding: .utf8).split(separator: "\n").map(
      String.init)
    #expect(
      here.suffix(5)
        == ["pre-round", "frozen", "post-round", "dumped", "committed"].map {
          "\($0) \(target.pid)"
        })
    let there = try String(contentsOfFile: heardThere, encoding: .utf8).split(
      separator: "\n"
    ).map(String.init)
    #expect(there == ["pre-restore \(target.pid)", "restored \(target.pid)"])
    target.expectThere("hooks")
  }

  @Test("nobody is there, or somebody who does not restore: the process is not touched")
  func strangers() throws {
    let nobody = try target.migration(to: "unix:" + target.directory.file("nobody"))
    #expect(nobody.finish() == 27, "\(nobody.errorText)")
    let plain = try MoveProgram(
      [
        MoveProgram.path, "receive", "--json", "--images-dir", target.images, "--from",
        "unix:" + target.directory.file("plain"),
      ], errors: target.directory.file("plain.err"))
    #expect(plain.wait(for: "listening"))
    let migration = try target.migration(to: "unix:" + target.directory.file("plain"))
    #expect(migration.finish() == 27)
    #expect(migration.errorText.contains("receive --restore"), "\(migration.errorText)")
    #expect(plain.finish() != 0)
    #expect(migration.events("attached").isEmpty)
    target.expectHere("strangers")
  }

  @Test("a number that is taken there is found out before the process is touched")
  func takenNumber() throws {
    let receiver = try MoveProgram(
      [
        MoveProgram.path, "receive", "--restore", "--json", "--images-dir", target.images,
        "--criu", DumpedTarget.criuPath, "--from", "unix:" + target.directory.file("same"),
      ], errors: target.directory.file("same.err"))
    #expect(receiver.wait(for: "listening"))
    let migration = try target.migration(to: "unix:" + target.directory.file("same"))
    #expect(migration.finish() == 1)
    #expect(migration.errorText.contains("there is a process \(target.pid) here already"))
    #expect(migration.events("attached").isEmpty)
    #expect(receiver.finish() == 1)
    target.expectHere("taken number")
  }

  @Test("what cannot work is refused before anything is touched") func usage() throws {
    for (words, text) in [
      (["migrate", "--pid", "\(target.pid)", "--to", "-"], "--to -"),
      (["migrate", "--pid", "\(target.pid)", "--images-dir", "x"], "--to"),
      (["receive", "--images-dir", "x", "--restore"], "--from"),
      (["receive", "--images-dir", "x", "--", "--x"], "--restore"),
    ] {
      let program = try MoveProgram(
        [MoveProgram.path] + words, errors: target.directory.file("usage.err"))
      #expect(program.finish() == 64, "\(words)")
      #expect(program.errorText.contains(text), "\(program.errorText)")
    }
    target.expectHere("usage")
  }

  @Test("a stopped process is refused, and stays stopped") func stopped() throws {
    kill(target.pid, SIGSTOP)
    #expect(eventually { target.stateHere == "T" })
    let (receiver, place) = try target.receiver()
    let migration = try target.migration(to: place)
    #expect(migration.finish() == 24, "\(migration.errorText)")
    receiver.send(SIGTERM)
    _ = receiver.finish()
    #expect(target.stateHere == "T")
    kill(target.pid, SIGCONT)
    target.expectHere("stopped")
  }

  @Test("no space left, here or there: the process runs on here", arguments: ["here", "there"])
  func diskFull(side: String) throws {
    let size = side == "here" ? "size=16k" : "size=2m"
    let place = try #require(try target.directory.mount("full", options: size))
    let images = side == "there" ? place + "/images" : target.images
    let receiver = try MoveProgram(
      machine.line([
        "/bin/sh", "-c",
        // The namespace has mounts of its own: the new one has to be made there, too.
        "mount -t tmpfs -o \(size) full \(place) && exec \"$0\" \"$@\"", MoveProgram.path,
        "receive", "--restore", "--json", "--images-dir", images, "--criu",
        DumpedTarget.criuPath, "--from", "unix:" + target.directory.file("socket"),
      ]), errors: target.directory.file("receiver.err"))
    try #require(receiver.wait(for: "listening"), "\(receiver.errorText)")
    let migration = try target.migration(
      to: "unix:" + target.directory.file("socket"), work: side == "here" ? place : nil)
    let status = migration.finish()
    #expect(status == (side == "here" ? 25 : 27), "\(migration.errorText)")
    #expect(migration.errorText.contains("No space left"), "\(migration.errorText)")
    #expect(receiver.finish() == (side == "here" ? 1 : 25), "\(receiver.errorText)")
    target.expectHere("disk full \(side)")
  }

  @Test("a Python program goes on counting where it was") func python() throws {
    let log = target.directory.file("counts")
    let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("Programs/steady.py").path
    let starter = try ChildProgram("/usr/bin/env", ["python3", script, log])
    let line = try #require(starter.line(beginning: "ready pid="))
    let pid = try #require(Int32(line.dropFirst("ready pid=".count)))
    defer { kill(machine.find(pid) ?? pid, SIGKILL) }
    func counts() -> [Int] {
      let text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
      return text.split(separator: "\n").map { Int($0) ?? -1 }
    }
    #expect(eventually { counts().count > 100 })
    let (receiver, place) = try target.receiver()
    let migration = try target.migration(of: pid, to: place)
    #expect([0, 3].contains(migration.finish()), "\(migration.errorText)")
    #expect(receiver.finish() == 0, "\(receiver.errorText)")
    let arrived = counts().count
    #expect(eventually { counts().count > arrived + 100 })
    // A table that was damaged ends in words, and a step that is lost or done twice in a gap.
    let all = counts()
    #expect(all == Array(stride(from: 0, to: all.count * 500, by: 500)))
  }

  @Test("a copy that fails after it was told to run is gone, and the process runs on here")
  func lateFailure() throws {
    // criu itself dies when all is restored and nothing of it has run.
    let script = target.directory.file("late.sh")
    try """
    #!/bin/sh
    [ "$CRTOOLS_SCRIPT_ACTION" = pre-resume ] || exit 0
    kill -KILL $PPID

    """.write(toFile: script, atomically: true, encoding: .utf8)
    chmod(script, 0o755)
    let (receiver, place) = try target.receiver(criu: ["--action-script", script])
    let migration = try target.migration(to: place)
    #expect(migration.finish() == 1, "\(migration.errorText)")
    #expect(
      migration.errorText.contains("criu restore was ended by signal 9"),
      "\(migration.errorText)")
    #expect(receiver.finish() == 1)
    #expect(
      receiver.events("step").contains { $0["step"] as? String == "ready" },
      "\(receiver.errorText)")
    target.expectHere("pre-resume failed")
  }

  @Test("an interrupted migration lets the process run on here", arguments: [SIGINT, SIGTERM])
  func interrupted(signal: Int32) throws {
    let mark = target.directory.file("mark")
    let (receiver, place) = try target.receiver()
    // Held in a command, where there is time to interrupt it.
    let migration = try target.migration(
      to: place,
      ["--on-event", "[ $MEMDUMP_EVENT != dumped ] || { touch \(mark); sleep 30; }"])
    #expect(eventually { FileManager.default.fileExists(atPath: mark) })
    #expect(target.stateHere == "T" || target.stateHere == "t")
    migration.send(signal)
    #expect(migration.finish() == 128 + signal, "\(migration.errorText)")
    #expect(migration.errorText.contains("runs on here"))
    #expect(receiver.finish() == 1, "\(receiver.errorText)")
    target.expectHere("interrupted")
  }

  @Test("that there is no such process is said, whatever else is missing") func noProcess() throws {
    let gone = try ChildProgram("/bin/true", [])
    #expect(gone.wait() == 0)
    let migration = try MoveProgram(
      [
        MoveProgram.path, "migrate", "--pid", "\(gone.pid)", "--to", "unix:/nowhere", "--criu",
        "/nowhere/criu",
      ], errors: target.directory.file("migrate.err"))
    #expect(migration.finish() == 20)
    #expect(migration.errorText.contains("there is no process \(gone.pid)"))
    #expect(!migration.errorText.contains("runs on"))
  }

  @Test("SIGUSR1 says on both sides what is being done") func status() throws {
    let mark = target.directory.file("mark")
    let (receiver, place) = try target.receiver()
    let migration = try target.migration(
      to: place,
      [
        "--on-event",
        "[ $MEMDUMP_EVENT != dumped ] || { touch \(mark); until [ -e \(mark).go ]; do sleep 0.05; done; }",
      ])
    #expect(eventually { FileManager.default.fileExists(atPath: mark) })
    migration.send(SIGUSR1)
    receiver.send(SIGUSR1)
    #expect(eventually { migration.errorText.contains("criu has dumped") })
    #expect(eventually { receiver.errorText.contains("round-") })
    #expect(FileManager.default.createFile(atPath: mark + ".go", contents: nil))
    #expect([0, 3].contains(migration.finish()), "\(migration.errorText)")
    #expect(receiver.finish() == 0)
    target.expectThere("status")
  }

  @Test("a whole tree of processes moves, with its descendants' memory in the rounds")
  func tree() throws {
    let log = target.directory.file("tree")
    let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("Programs/steady.py").path
    let starter = try ChildProgram("/usr/bin/env", ["python3", script, log, "3"])
    let line = try #require(starter.line(beginning: "ready pid="))
    let pid = try #require(Int32(line.dropFirst("ready pid=".count)))
    defer { kill(-(machine.find(pid) ?? pid), SIGKILL) }
    func counts(_ child: Int) -> [Int] {
      let text = (try? String(contentsOfFile: "\(log).\(child)", encoding: .utf8)) ?? ""
      return text.split(separator: "\n").map { Int($0) ?? -1 }
    }
    #expect(eventually { (0..<3).allSatisfy { counts($0).count > 50 } })
    let (receiver, place) = try target.receiver()
    let migration = try target.migration(of: pid, to: place, ["--tree"])
    #expect([0, 3].contains(migration.finish()), "\(migration.errorText)")
    #expect(receiver.finish() == 0, "\(receiver.errorText)")
    #expect(migration.events("attached").first?["processes"] as? Int == 4)
    let arrived = (0..<3).map { counts($0).count }
    #expect(eventually { (0..<3).allSatisfy { counts($0).count > arrived[$0] + 50 } })
    for child in 0..<3 {
      let all = counts(child)
      #expect(all == Array(stride(from: 0, to: all.count * 500, by: 500)), "child \(child)")
    }
  }
}
