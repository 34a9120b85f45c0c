import Foundation
import Glibc
import Kernel
import TestSupport
import Testing
import Tracee

/// Every blocking call and every state of a thread, attached to and frozen many times: nothing that
/// the target can see changes. What does change is named by the tests of `LimitTests`.
@Suite(.serialized) struct MatrixTests {
  /// The calls of `Tests/Workloads/parked_calls.c`.
  static let calls = [
    "nanosleep", "clock_nanosleep_abs", "poll", "poll_timed", "ppoll", "ppoll_timed", "select",
    "select_timed", "pselect_timed", "epoll", "epoll_timed", "futex", "futex_timed", "futex_abs",
    "read_pipe", "read_eventfd", "read_timerfd", "read_inotify", "read_signalfd",
    "write_full_pipe", "accept", "recv", "recvmsg", "recv_timed", "recv_rcvtimeo", "wait4",
    "waitid", "pause", "sigsuspend", "sigwaitinfo", "sigtimedwait", "semop", "semtimedop",
    "msgrcv", "mq_timedreceive", "flock", "setlkw", "ofd_setlkw", "io_uring_enter",
    "io_getevents", "io_getevents_timed",
  ]

  @Test("a thread waiting in a call does not see an attach", arguments: calls)
  func attach(call: String) throws {
    let workload = try Workload("parked", ["call=\(call)"])
    try Disturbance.attach.run(workload.pid)
    workload.expectNoAnomaly()
    #expect(workload.ask("wake") == "woken")
    #expect(workload.ask("signal") == "signalled")
    workload.expectNoAnomaly()
  }

  @Test("threads waiting in every call do not see a freeze") func freeze() throws {
    let workload = try Workload("parked", ["call=all"])
    try Disturbance.freeze.run(workload.pid, times: Disturbance.count * 4)
    workload.expectNoAnomaly()
    #expect(workload.ask("wake") == "woken")
    #expect(workload.ask("signal") == "signalled")
    workload.expectNoAnomaly()
  }

  @Test("threads waiting in every call do not see a hand-over to another tracer")
  func handOver() throws {
    let workload = try Workload("parked", ["call=all"])
    defer { _ = workload.ask("quit") }
    let target = try TargetProcess(pid: workload.pid)
    let guardian = try ProcessGuardian()
    for _ in 0..<Disturbance.count * 2 {
      let frozen = try FrozenProcess(freezing: target, timeoutNanoseconds: 2_000_000_000)
      let stopped = try frozen.handOver(
        guardian: guardian, timeoutNanoseconds: 2_000_000_000)
      for tid in try target.threadIDs() {
        #expect(try ProcessStat(parsing: target.read("task/\(tid)/stat")).state == "T")
        #expect(ProcessStatus(parsing: try target.read("task/\(tid)/status")).tracer == 0)
      }
      _ = try stopped.release(leaving: .running)
    }
    workload.expectNoAnomaly()
    #expect(workload.ask("wake") == "woken")
    #expect(workload.ask("signal") == "signalled")
    workload.expectNoAnomaly()
    try expectUntouched(target)
  }

  @Test(
    "signals that come during attaches and freezes are neither lost nor doubled",
    arguments:
      Disturbance.allCases)
  func signals(disturbance: Disturbance) throws {
    let workload = try Workload("parked", ["call=all"])
    let target = try TargetProcess(pid: workload.pid)
    // Both answers come when every thread was woken, or interrupted, and said so.
    for (command, answer) in [("signal", "signalled"), ("wake", "woken"), ("signal", "signalled")] {
      workload.program.send(command)
      for _ in 0..<Disturbance.count { try disturbance.once(target) }
      #expect(workload.program.readLine() == answer)
    }
    workload.expectNoAnomaly()
    try expectUntouched(target)
  }

  /// The states of `Tests/Workloads/states.c` in which nothing is visible.
  static let states = [
    "spin", "call", "second", "vdso", "handler", "altstack", "blocked", "trap_handled",
    "trap_blocked", "trap_ignored", "stepping", "rseq", "smallstack", "sharedstack", "deepstack",
    "altstacks", "strict", "nofile", "namespaces", "nonroot",
  ]

  @Test(
    "a thread in any state does not see an attach or a freeze", arguments: states,
    Disturbance.allCases)
  func state(kind: String, disturbance: Disturbance) throws {
    let workload = try Workload("state", ["kind=\(kind)"])
    try disturbance.run(workload.pid)
    workload.expectNoAnomaly()
  }

  @Test(
    "a stopped process stays stopped, and its parent hears nothing",
    arguments:
      Disturbance.allCases)
  func stopped(disturbance: Disturbance) throws {
    let workload = try Workload("state", ["kind=stopped"])
    let pid = workload.pid
    try disturbance.run(pid)
    #expect(workload.ask("look") == "looked")
    #expect(workload.ask("continue") == "continued")
    try disturbance.run(pid)
    workload.expectNoAnomaly()
  }

  @Test("a filter that kills on userfaultfd(2) is not asked", arguments: Disturbance.allCases)
  func seccomp(disturbance: Disturbance) throws {
    let workload = try Workload("seccomp")
    try disturbance.run(workload.pid)
    #expect(workload.reported("count") > 0)
  }

  @Test("many threads see nothing", arguments: [50, 1000], Disturbance.allCases)
  func manyThreads(count: Int, disturbance: Disturbance) throws {
    let workload = try Workload("threads", ["count=\(count)", "spinners=2"])
    try disturbance.run(workload.pid, times: count > 100 ? 4 : Disturbance.count)
    #expect(workload.ask("report") == "eintr=0 early=0 wrong=0 alive=\(count)")
    let wake = workload.ask("wake").split(separator: " ").map { $0.drop { $0 != "=" } }
    #expect(wake.count == 2 && wake[0] == wake[1], "\(wake)")
  }
}
