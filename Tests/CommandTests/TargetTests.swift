import Foundation
import TestSupport
import Testing

/// Processes that memdump must refuse, or that go away under it.
@Suite(.serialized) struct TargetTests {
  private let scratch: TemporaryDirectory
  private var images: String { scratch.file("images") }

  init() throws { scratch = try TemporaryDirectory() }

  private func predump(_ pid: Int32, _ more: [String] = []) throws -> Memdump.Outcome {
    try Memdump.run(["predump", "--pid", "\(pid)", "--images-dir", images] + more)
  }

  @Test("a pid that nobody has") func nobody() throws {
    let ended = try ChildProgram("/bin/true", [])
    _ = ended.wait()
    expectRefusal(try predump(ended.pid), 20, saying: "\(ended.pid)")
    try expectNothingWhole(images)
  }

  @Test(
    "a kernel thread",
    .enabled(if: Self.isKernelThread(2), "pid 2 is no kernel thread in this pid namespace"))
  func kernelThread() throws {
    expectRefusal(try predump(2), 24, saying: "kernel")
    try expectNothingWhole(images)
  }

  @Test("a zombie") func zombie() throws {
    let workload = try Workload("zombie")
    let pid = try workload.processID("zombie")
    expectRefusal(try predump(pid), 24, saying: "reap")
    #expect(ProcessState(of: pid).letter == "Z")
    try expectNothingWhole(images)
  }

  @Test("memdump itself") func oneself() throws {
    let script = "exec \"$0\" predump --pid $$ --images-dir \"$1\""
    let outcome = try Memdump.run([images], wrapper: ["/bin/sh", "-c", script])
    expectRefusal(outcome, 24)
    try expectNothingWhole(images)
  }

  @Test("a 32-bit program") func otherMachine() throws {
    let workload = try Workload("elf32", ["path=\(scratch.file("program"))"])
    let target = try ChildProgram(try #require(workload.ready["path"]), [], lifetime: 60)
    #expect(eventually { ProcessState(of: target.pid).letter == "S" })
    expectRefusal(try predump(target.pid), 24, saying: "32-bit")
    expectFree(target.pid)
    try expectNothingWhole(images)
  }

  @Test("another user's process, without the right to trace it") func permission() throws {
    let workload = try Workload("idle")
    // The build's directory may be out of the other user's reach.
    let copy = scratch.file("memdump")
    try FileManager.default.copyItem(atPath: Memdump.path, toPath: copy)
    try FileManager.default.createDirectory(
      atPath: images, withIntermediateDirectories: false)
    chown(images, 65534, 65534)
    let outcome = try Memdump.run(
      ["predump", "--pid", "\(workload.pid)", "--images-dir", images],
      wrapper: ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
      path: copy)
    expectRefusal(outcome, 21)
    expectFree(workload.pid)
    try expectNothingWhole(images)
  }

  @Test("a process that somebody traces already") func traced() throws {
    let workload = try Workload("traced")
    let tracer = try workload.processID("tracer")
    #expect(ProcessState(of: workload.pid).tracer == tracer)
    expectRefusal(try predump(workload.pid), 24, saying: "\(tracer)")
    let after = ProcessState(of: workload.pid)
    #expect(after.tracer == tracer)
    #expect(!after.isTracked)
    try expectNothingWhole(images)
  }

  @Test("a process that exits in the midst of a round") func exits() throws {
    let workload = try Workload("exiter", ["bytes=192M"])
    try endInRound(workload, command: "exit", saying: "ended")
    #expect(workload.program.wait() == 0)
  }

  @Test("a process that calls execve in the midst of a round") func replaced() throws {
    let workload = try Workload("execer", ["bytes=192M"])
    try endInRound(workload, command: "exec", saying: "execve")
    #expect(workload.program.line(beginning: "ready ") != nil)
    expectFree(workload.pid)
  }

  private func endInRound(_ workload: Workload, command: String, saying word: String) throws {
    let memdump = try Memdump([
      "predump", "--pid", "\(workload.pid)", "--images-dir", images, "--json",
    ])
    #expect(try memdump.wait(for: "attached") != nil)
    workload.program.send(command)
    let outcome = try memdump.finish()
    expectRefusal(outcome, 20, saying: word)
    let error = try #require(try outcome.events().last)
    #expect(error.name == "error")
    #expect(error["kind"] == "target-gone")
    #expect(error["exit_code"] == 20)
    try expectNothingWhole(images)
  }

  private static func isKernelThread(_ pid: Int32) -> Bool {
    guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/stat") else { return false }
    // proc_pid_stat(5): after the command's `)` come state, ppid, pgrp, session, tty, tpgid, flags.
    let text = String(decoding: data, as: UTF8.self)
    let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
    let kernelThreadFlag: UInt64 = 0x0020_0000
    return fields.count > 6 && (UInt64(fields[6]) ?? 0) & kernelThreadFlag != 0
  }
}
