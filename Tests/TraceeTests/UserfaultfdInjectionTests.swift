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
    #expect(try target.stat().state == "S")
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
}
