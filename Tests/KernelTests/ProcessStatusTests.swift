import Foundation
import Kernel
import TestSupport
import Testing

@Suite(.serialized) struct ProcessStatusTests {
  @Test("every field is found")
  func fields() {
    let status = ProcessStatus(
      parsing: Array(
        """
        Name:\ta:b c
        Tgid:\t17
        TracerPid:\t23
        Uid:\t1\t2\t3\t4294967294
        VmRSS:\t    1234 kB
        SigPnd:\t0000000000000000
        ShdPnd:\t0000000000004000
        SigBlk:\t0000000000000000
        SigCgt:\t0000000000004000
        CapEff:\t000001ffffffffff
        Seccomp:\t2

        """.utf8))
    #expect(status.name == "a:b c")
    #expect(status.threadGroup == 17)
    #expect(status.tracer == 23)
    #expect(status.userIDs == [1, 2, 3, 4_294_967_294])
    #expect(status.residentBytes == 1234 * 1024)
    #expect(status.effectiveCapabilities == 0x1ff_ffff_ffff)
    #expect(status.seccompMode == 2)
    #expect(status.hasHandledSignalPending)
  }

  @Test(
    "a pending signal is handled only if it has a handler and is not blocked",
    arguments: [
      // thread pending, process pending, blocked, caught
      ("4", "0", "0", "4", true), ("0", "4", "0", "4", true), ("4", "0", "4", "4", false),
      ("4", "0", "0", "2", false), ("0", "0", "0", "ffffffffffffffff", false),
      ("8000000000000000", "0", "0", "8000000000000000", true),
    ])
  func pendingSignals(
    thread: String, process: String, blocked: String, caught: String, isPending: Bool
  ) {
    let text = "SigPnd:\t\(thread)\nShdPnd:\t\(process)\nSigBlk:\t\(blocked)\nSigCgt:\t\(caught)\n"
    #expect(ProcessStatus(parsing: Array(text.utf8)).hasHandledSignalPending == isPending)
  }

  @Test("a zombie's status lacks memory and reads as zeros")
  func missingFields() throws {
    let target = try Workload("zombie")
    let status = try TargetProcess(pid: try target.processID("zombie")).status()
    #expect(status.residentBytes == 0)
    #expect(status.name == "workload")
    #expect(ProcessStatus(parsing: []).effectiveCapabilities == 0)
  }

  @Test("a tracer is named")
  func tracer() throws {
    let target = try Workload("traced")
    let status = try TargetProcess(pid: target.pid).status()
    #expect(status.tracer == (try target.processID("tracer")))
  }
}
