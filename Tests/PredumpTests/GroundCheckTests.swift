import CTestSupport
import Foundation
import Kernel
import Predump
import TestSupport
import Testing

@Suite(.serialized) struct GroundCheckTests {
  private static let kernelItems = [
    "kernel.userfaultfd", "kernel.wp-async", "kernel.pte-markers", "kernel.pagemap-scan",
    "kernel.pidfd-getfd", "kernel.inaccessible-memory", "kernel.soft-dirty",
    "kernel.tracking-self-test",
    "permission.ptrace",
    "permission.map-files", "permission.suspend-seccomp",
  ]
  private static let targetItems = [
    "target.exists", "target.self", "target.kind", "target.tracer", "target.permission",
    "target.leader", "target.userfaultfd", "target.memory",
  ]

  private func item(_ id: String, of report: CheckReport) throws -> CheckReport.Item {
    try #require(report.items.first { $0.id == id }, "no item \(id) in \(report.items)")
  }

  /// The reason why the report says that the target is unsuitable.
  private func unsuitable(_ report: CheckReport, _ id: String) throws -> String {
    #expect(try item(id, of: report).status == .missing)
    guard case .unsuitableTarget(_, let reason) = report.failure else {
      Issue.record("not unsuitable but \(String(describing: report.failure))")
      return ""
    }
    return reason
  }

  @Test("this machine can do it, and every item has its place")
  func machineIsReady() throws {
    let report = GroundCheck.run(pid: nil, imagesDirectory: nil)
    #expect(report.items.map(\.id) == Self.kernelItems)
    for item in report.items { #expect(item.status == .ok, "\(item)") }
    #expect(report.failure == nil)
  }

  @Test("an ordinary process is suitable, and is left as it was")
  func ordinaryTarget() throws {
    let target = try Workload("idle", ["pages=64"])
    let process = try TargetProcess(pid: target.pid)
    let report = GroundCheck.run(pid: process.pid, imagesDirectory: "/tmp")
    #expect(report.items.map(\.id) == Self.kernelItems + Self.targetItems + ["destination.space"])
    for item in report.items { #expect(item.status == .ok, "\(item)") }
    #expect(report.failure == nil)
    #expect(try process.stat().state == "S")
    #expect(try process.status().tracer == 0)
  }

  @Test("a pid that nobody has is a target that was never found")
  func noSuchProcess() throws {
    // No pid is larger than the kernel's own limit, 4,194,304.
    let report = GroundCheck.run(pid: 5_000_000, imagesDirectory: nil)
    #expect(try item("target.exists", of: report).status == .missing)
    guard case .targetGone(5_000_000, .neverFound) = report.failure else {
      Issue.record("\(String(describing: report.failure))")
      return
    }
  }

  @Test("memdump refuses itself")
  func itself() throws {
    let report = GroundCheck.run(pid: getpid(), imagesDirectory: nil)
    #expect(try unsuitable(report, "target.self").contains("memdump itself"))
  }

  @Test("a thread's id is refused, naming the process")
  func threadID() throws {
    let target = try Workload("threads", ["count=2", "spinners=0"])
    let process = try TargetProcess(pid: target.pid)
    let thread = try #require(try process.threadIDs().last)
    let report = GroundCheck.run(pid: thread, imagesDirectory: nil)
    #expect(try unsuitable(report, "target.exists").contains("thread of process \(process.pid)"))
  }

  @Test("a kernel thread is refused")
  func kernelThread() throws {
    let report = GroundCheck.run(pid: 2, imagesDirectory: nil)
    #expect(try unsuitable(report, "target.kind").contains("kernel thread"))
  }

  @Test("a zombie is refused, naming who has to reap it")
  func zombie() throws {
    let target = try Workload("zombie")
    let report = GroundCheck.run(pid: try target.processID("zombie"), imagesDirectory: nil)
    let reason = try unsuitable(report, "target.kind")
    #expect(reason.contains("process \(target.pid)"), "\(reason)")
  }

  @Test("a 32-bit program is refused")
  func program32Bit() throws {
    let path = "/var/tmp/memdump-elf32-\(getpid())"
    defer { unlink(path) }
    _ = try Workload("elf32", ["path=\(path)"])
    let program = try ChildProgram(path, [])
    defer { program.end() }
    let report = GroundCheck.run(pid: program.pid, imagesDirectory: nil)
    #expect(try unsuitable(report, "target.kind").contains("32-bit"))
  }

  @Test("a vfork child is refused, and its parent gets a warning")
  func vforkChild() throws {
    let target = try Workload("vfork")
    let child = GroundCheck.run(pid: try target.processID("child"), imagesDirectory: nil)
    #expect(try unsuitable(child, "target.kind").contains("vfork"))
    let parent = GroundCheck.run(pid: target.pid, imagesDirectory: nil)
    let found = try item("target.kind", of: parent)
    #expect(found.status == .warning)
    #expect(found.detail.contains("process \(try target.processID("child"))"))
  }

  @Test("a traced process is refused, naming the tracer")
  func traced() throws {
    let target = try Workload("traced")
    let report = GroundCheck.run(pid: target.pid, imagesDirectory: nil)
    let reason = try unsuitable(report, "target.tracer")
    #expect(reason.contains("process \(try target.processID("tracer")) (workload)"), "\(reason)")
  }

  @Test("a process whose first thread has ended is refused for that")
  func leaderless() throws {
    let target = try Workload("leaderless", ["bytes=1M"])
    let report = GroundCheck.run(pid: target.pid, imagesDirectory: nil)
    #expect(try unsuitable(report, "target.leader").contains("first thread has ended"))
  }

  @Test("a target's own userfaultfd costs a longer freeze, not the dump")
  func ownUserfaultfd() throws {
    let target = try Workload("uffd", ["pages=64"])
    let report = GroundCheck.run(pid: target.pid, imagesDirectory: nil)
    let found = try item("target.userfaultfd", of: report)
    #expect(found.status == .warning)
    #expect(found.detail.contains("of the process's own"))
    #expect(found.detail.contains(try #require(target.ready["arena"])))
    #expect(report.failure == nil)
  }

  @Test("processes of others are a question of permission, whatever else then fails")
  func otherUser() async throws {
    let target = try Workload("idle")
    let pid = target.pid
    // A process of its own, which then is nobody's.
    await #expect(processExitsWith: .success) { [pid = pid as Int32] in
      try #require(test_become_user(65_534) == 0)
      let report = GroundCheck.run(pid: pid, imagesDirectory: nil)
      let warnings = report.items.filter { $0.status == .warning }.map(\.id)
      #expect(
        warnings == ["permission.ptrace", "permission.map-files", "permission.suspend-seccomp"])
      let missing = report.items.filter { $0.status == .missing }
      #expect(missing.map(\.id) == ["target.permission"])
      #expect(missing.allSatisfy { $0.remedy.contains("CAP_SYS_PTRACE") })
      guard case .permission(let text) = report.failure else {
        Issue.record("\(String(describing: report.failure))")
        return
      }
      #expect(text.contains("it belongs to user 0"), "\(text)")
    }
  }
}
