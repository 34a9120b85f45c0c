import Foundation
import Glibc
import Kernel
import TestSupport
import Testing
import Tracee

/// What goes wrong in the midst of attaching or freezing, and the limits of hiding it.
@Suite(.serialized) struct HarmTests {
  @Test(
    "a SIGSTOP that comes during an attach or a freeze stops the process afterwards",
    arguments:
      Disturbance.allCases)
  func stopSignal(disturbance: Disturbance) throws {
    let workload = try Workload("state", ["kind=call"])
    let pid = workload.pid
    let target = try TargetProcess(pid: pid)
    for seed in SeededRandom.seeds(1, environment: ProcessInfo.processInfo.environment) {
      var random = SeededRandom(seed: seed)
      for _ in 0..<100 {
        // Somewhere in the half millisecond that an attach takes.
        let delay = UInt64.random(in: 0..<500_000, using: &random)
        let sender = try OSThread(name: "test-stop") {
          MonotonicClock.pause(nanoseconds: delay)
          kill(pid, SIGSTOP)
        }
        try disturbance.once(target)
        sender.join()
        #expect(try eventually { try target.stat().state == "T" }, "seed \(seed)")
        kill(pid, SIGCONT)
        #expect(try eventually { try target.stat().state != "T" }, "seed \(seed)")
      }
    }
    workload.expectNoAnomaly()
    try expectUntouched(target)
  }

  @Test("a thread that does not stop in time leaves everything running, and nothing seen")
  func vforkParent() throws {
    let workload = try Workload("state", ["kind=vforked"])
    let target = try TargetProcess(pid: workload.pid)
    #expect(workload.ask("vfork") == "vforked")
    // The first thread waits in the kernel for its child; the others do not see what they miss.
    for _ in 0..<3 {
      do throws(TraceError) {
        _ = try FrozenProcess(freezing: target, timeoutNanoseconds: 100_000_000)
        Issue.record("it was frozen")
      } catch {
        guard case .notStopping(target.pid, 100) = error else {
          Issue.record("\(error)")
          return
        }
      }
      // The kernel lets go of the thread that did not stop when the one that traced it is gone, which
      // is a moment after it was joined.
      let isFree = try eventually { try target.status().tracer == 0 }
      #expect(isFree)
      try expectUntouched(target)
    }
    // Another thread can make the call.
    _ = try UserfaultfdInjection.inject(into: target)
    try expectUntouched(target)
    workload.expectNoAnomaly()
  }

  // Limit: a child forked in the very midst of the injected call can inherit the descriptor, which
  // is close-on-exec; it keeps the tracking alive until it calls execve or exits.
  @Test("a child forked during an attach keeps the tracking alive no longer than it lives")
  func forker() throws {
    let workload = try Workload("state", ["kind=forker"])
    let target = try TargetProcess(pid: workload.pid)
    for _ in 0..<100 {
      let descriptor = try UserfaultfdInjection.inject(into: target).take()
      let tracker = try Userfaultfd(owning: descriptor, of: "test")
      let stack = try #require(try target.maps().first { $0.path == "[stack]" })
      try tracker.register(stack.range)
      _ = consume tracker
      let deadline = MonotonicClock.now + 10_000_000_000
      while try isTracked(target), MonotonicClock.now < deadline { sched_yield() }
      #expect(!(try isTracked(target)))
    }
    workload.expectNoAnomaly()
    try expectUntouched(target)
  }

  private func isTracked(_ target: borrowing TargetProcess) throws -> Bool {
    let smaps = String(decoding: try target.read("smaps"), as: UTF8.self)
    return smaps.split(separator: "\n").contains {
      $0.hasPrefix("VmFlags:") && $0.split(separator: " ").contains("uw")
    }
  }

  @Test("a stack that is used down to its end grows once") func deepStack() throws {
    let workload = try Workload("state", ["kind=deepstack"])
    let target = try TargetProcess(pid: workload.pid)
    func stack() throws -> PageRange? { try target.maps().first { $0.path == "[stack]" }?.range }
    let before = try #require(try stack())
    _ = try UserfaultfdInjection.inject(into: target)
    let grown = try #require(try stack())
    #expect(before.start - grown.start == 128 * 1024)
    for _ in 0..<10 { _ = try UserfaultfdInjection.inject(into: target) }
    #expect(try stack() == grown)
    workload.expectNoAnomaly()
  }

  @Test("a process whose first thread has ended can be frozen; an attach is refused")
  func leaderless()
    throws
  {
    let workload = try Workload("leaderless", ["bytes=1M"])
    let target = try TargetProcess(pid: workload.pid)
    for _ in 0..<10 {
      let frozen = try FrozenProcess(freezing: target, timeoutNanoseconds: 1_000_000_000)
      #expect(frozen.threadCount >= 2)
      _ = try frozen.thaw(leaving: .running)
      // /proc shows no memory of such a process.
      #expect(throws: TraceError.self) { _ = try UserfaultfdInjection.inject(into: target) }
    }
    try expectUntouched(target)
    #expect(workload.ask("x") == "unknown")
  }

  @Test("an attach asks a thread that is not in the midst of a write") func divisibleAttach() throws
  {
    let workload = try Workload("state", ["kind=shortwrite"])
    try Disturbance.attach.run(workload.pid)
    workload.expectNoAnomaly()
  }

  @Test("limit: a freeze cuts a blocking write that is partly done short, as SIGSTOP would")
  func divisibleFreeze() throws {
    let workload = try Workload("state", ["kind=shortwrite"])
    try Disturbance.freeze.run(workload.pid)
    let report = workload.ask("report")
    #expect(report.contains(" write: "), "\(report)")
  }

  @Test("limit: beyond the hard RLIMIT_NOFILE an attach takes CAP_SYS_RESOURCE") func hardLimit()
    throws
  {
    let workload = try Workload("state", ["kind=nofile_hard"])
    let target = try TargetProcess(pid: workload.pid)
    let capability: UInt64 = 1 << 24
    for _ in 0..<10 {
      do throws(TraceError) {
        _ = try UserfaultfdInjection.inject(into: target)
      } catch {
        guard case .noDescriptorFree = error else {
          Issue.record("\(error)")
          return
        }
        #expect(try ThisThread.status().effectiveCapabilities & capability == 0)
      }
    }
    workload.expectNoAnomaly()
    try expectUntouched(target)
  }

  @Test("limit: a relative time-out that the kernel does not restart starts over") func timeouts()
    throws
  {
    let workload = try Workload("parked", ["call=epoll_timed"])
    let target = try TargetProcess(pid: workload.pid)
    // 30 ms each, disturbed every millisecond: none is over before the disturbances are.
    let before = workload.reported("ticks")
    var last = MonotonicClock.now
    // Unless this machine has nothing for us in between.
    var undisturbed: UInt64 = 0
    for _ in 0..<100 {
      try Disturbance.attach.once(target)
      MonotonicClock.pause(nanoseconds: 1_000_000)
      undisturbed += (MonotonicClock.now - last) / 15_000_000
      last = MonotonicClock.now
    }
    #expect(workload.reported("ticks") - before <= 2 + Int(undisturbed))
    workload.expectNoAnomaly()
  }
}
