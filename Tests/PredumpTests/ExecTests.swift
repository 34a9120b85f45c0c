import Foundation
import Images
import TestSupport
import Testing
import Tracee

@testable import Predump

/// A target that becomes another program.
@Suite(.serialized) struct ExecTests {
  @Test("after an execve the dump starts anew, and takes nothing from before") func restarts()
    throws
  {
    let target = try Workload("execer", ["bytes=16M"])
    defer { target.program.end() }
    let directory = try TemporaryDirectory()
    let path = directory.file("images")
    var options = PredumpOptions(pid: target.pid, imagesDirectory: path)
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.maxRounds = 2
    options.policy.thresholdPages = 0
    options.onExec = .restart
    // A round that has to reach the disk is told of when the next one has begun.
    options.sync = false
    options.leave = .stopped
    let summary = try Predump.run(options) { event in
      guard case .roundFinished(let report) = event, report.index == 1 else { return }
      target.program.send("exec")
      #expect(target.program.line(beginning: "ready ") != nil)
    }
    defer { kill(target.pid, SIGCONT) }
    // One round of the old address space, two and the freeze of the new one.
    #expect(summary.rounds.map(\.kind) == [.live, .live, .live, .frozen])
    #expect(summary.rounds[1].totals.pagesFromParent == 0)
    let report = ChainVerifier.verify(path)
    #expect(report.verdict == .restorable, "\(report)")
    let live = try LiveComparison.run(directory: path, pid: target.pid)
    #expect(live.isEqual, "\(live)")
    #expect(live.pagesCompared < 4096, "of the 16 MiB from before nothing is left")
  }

  @Test("without --on-exec restart an execve is the end, and what is kept says so") func aborts()
    throws
  {
    let target = try Workload("execer", ["bytes=1M"])
    defer { target.program.end() }
    let directory = try TemporaryDirectory()
    let path = directory.file("images")
    var options = PredumpOptions(pid: target.pid, imagesDirectory: path)
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.thresholdPages = 0
    let error = #expect(throws: PredumpError.self) {
      try Predump.run(options) { event in
        guard case .roundFinished(let report) = event, report.index == 1 else { return }
        target.program.send("exec")
        #expect(target.program.line(beginning: "ready ") != nil)
      }
    }
    guard case .targetGone(target.pid, .replaced)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(ChainVerifier.verify(path).verdict == .consistentNotRestorable)
  }
}
