import Foundation
import Kernel
import Synchronization
import TestSupport
import Testing
import Tracee

/// Where the frame of the injected call lies is nobody else's while it is there.
@Suite(.serialized) struct FrameAreaTests {
  #if DEBUG
    @Test("the first thread may use its stack as deep as it likes while another makes the call")
    func deepening() throws {
      let workload = try Workload("state", ["kind=deepening"])
      let target = try TargetProcess(pid: workload.pid)
      #expect(try eventually { try target.stat().state == "D" })
      // The first thread waits for its child: another one is asked. The child ends in the midst of it.
      let faults = FaultPlan(at: .insideCall) {
        #expect(workload.ask("deepen") == "deep")
      }
      _ = try UserfaultfdInjection.inject(into: target, faults: faults)
      #expect(workload.ask("return") == "returned")
      workload.expectNoAnomaly()
      try expectUntouched(target)
    }

    @Test("everybody stands still where no thread is on a stack of its own") func altstacks() throws
    {
      let workload = try Workload("state", ["kind=altstacks"])
      let pid = workload.pid
      let target = try TargetProcess(pid: pid)
      #expect(try eventually { try target.threadIDs().count == 2 })
      let states = Mutex<[Character]>([])
      for _ in 0..<10 {
        let faults = FaultPlan(at: .insideCall) {
          let seen = (try? Self.states(of: TargetProcess(pid: pid))) ?? []
          states.withLock { $0 = seen }
        }
        _ = try UserfaultfdInjection.inject(into: target, faults: faults)
        #expect(states.withLock { $0 } == ["t", "t"])
        workload.expectNoAnomaly()
        try expectUntouched(target)
      }
    }
  #endif

  private static func states(of target: borrowing TargetProcess) throws -> [Character] {
    try target.threadIDs().map { try ProcessStat(parsing: target.read("task/\($0)/stat")).state }
  }
}
