import Foundation
import Kernel
import TestSupport
import Testing
import Tracee

@Suite(.serialized) struct UserfaultfdInjectionTests {
  @Test("an injected userfaultfd tracks the target, which keeps no descriptor")
  func injects() throws {
    // Ready: past its execve, with the descriptors that it keeps.
    let child = try Workload("idle").program
    defer { child.end() }
    let target = try TargetProcess(pid: child.pid)
    let before = try target.names(in: "fd")
    for _ in 0..<200 {
      let outcome = try UserfaultfdInjection.inject(into: target)
      let descriptor = outcome.take()
      let tracker = try Userfaultfd(owning: descriptor, of: "test")
      let heap = try #require(try target.maps().first { $0.path == "[stack]" })
      try tracker.register(heap.range)
      let scanner = PagemapScanner(pagemap: try target.open("pagemap"))
      #expect(try scanner.isRegistered(heap.range.start))
    }
    #expect(try target.names(in: "fd") == before)
    #expect(child.isRunning)
    #expect(try eventually { try target.stat().state == "S" })
  }

  @Test("a freeze holds every thread and lets it go")
  func freezes() throws {
    // Ready: past its execve, with the descriptors that it keeps.
    let child = try Workload("idle").program
    defer { child.end() }
    let target = try TargetProcess(pid: child.pid)
    for _ in 0..<100 {
      let frozen = try FrozenProcess(freezing: target, timeoutNanoseconds: 1_000_000_000)
      #expect(try target.stat().state == "t")
      _ = try frozen.thaw(leaving: .running)
      #expect(try target.status().tracer == 0)
    }
    _ = try FrozenProcess(freezing: target, timeoutNanoseconds: 1_000_000_000).thaw(
      leaving: .stopped)
    #expect(try target.stat().state == "T")
    _ = try FrozenProcess(freezing: target, timeoutNanoseconds: 1_000_000_000).thaw(
      leaving: .running)
    // On its way back into the stop that it was in.
    while try target.stat().state != "T" { sched_yield() }
    _ = try FrozenProcess(freezing: target, timeoutNanoseconds: 1_000_000_000).thaw(
      leaving: .killed)
    #expect(child.wait() == SIGKILL)
  }

  @Test("a process that is left stopped runs no instruction, however late it gets a processor")
  func leftStopped() throws {
    // The first thread waits for a command; the other one counts.
    let workload = try Workload("seccomp")
    let pid = workload.pid
    let target = try TargetProcess(pid: pid)
    let counter = try workload.number("counter")
    let memory = ProcessMemory(file: try target.open("mem"))
    let frozen = try FrozenProcess(freezing: target, timeoutNanoseconds: 30_000_000_000)
    let before = try count(at: counter, memory)
    // What the first thread is bound to is busy: its stop comes late, and the other's must wait.
    let hog = try ChildProgram(
      "/bin/sh",
      [
        "-c",
        "taskset -p -c 0 \(pid) && taskset -p -c 0 $$ && chrt -f -p 1 $$ && echo busy; "
          + "while :; do :; done",
      ])
    defer { hog.end() }
    #expect(hog.line(beginning: "busy") != nil)
    _ = try frozen.thaw(leaving: .stopped)
    #expect(try eventually { try target.stat().state == "T" })
    #expect(try count(at: counter, memory) == before)
    kill(pid, SIGCONT)
    #expect(try eventually { try count(at: counter, memory) > before })
  }

  private func count(at address: UInt64, _ memory: borrowing ProcessMemory) throws -> UInt64 {
    var value: UInt64 = 0
    try withUnsafeMutableBytes(of: &value) { buffer throws(KernelError) in
      try memory.read(at: address, into: buffer)
    }
    return value
  }
}
