import Foundation
import Images
import Kernel
import TestSupport
import Testing
import Tracee

@testable import Predump

/// Writers that the write-protect bit cannot see.
@Suite(.serialized) struct PinnedWriterTests {
  @Test(
    "pages written by direct reads and through registered buffers are in the image",
    arguments: ["direct", "fixed"])
  func pinned(_ how: String) throws {
    guard let target = try? Workload("pinned", ["how=\(how)", "pages=512", "rate=4000"]) else {
      print("not run: this machine has no \(how) I/O")
      return
    }
    defer { target.program.end() }
    for run in 0..<4 {
      let directory = try TemporaryDirectory()
      let freeze = try #require(
        try dump(target, to: directory.file("images")) { $0.scan = .auto }.freeze)
      let live = try LiveComparison.run(
        directory: directory.file("images"), pid: target.pid)
      // What is in flight at the freeze may land after its page was copied, and is told.
      #expect(live.pagesDifferent <= UInt64(freeze.requestsInFlight), "run \(run): \(live)")
      #expect(live.vmasDifferent == 0, "run \(run): \(live)")
      kill(target.pid, SIGCONT)
    }
  }

  @Test("--verify-final stores what tracking lost, and only that") func verifies() throws {
    let target = try Workload("stamp", ["pages=2048", "rate=2000", "cold=0"])
    defer { target.program.end() }
    let directory = try TemporaryDirectory()
    let freeze = try #require(
      try dump(target, to: directory.file("images")) { $0.verifiesFinal = true }.freeze)
    #expect(freeze.pagesFoundByVerification == 0, "tracking loses no store")
    let live = try LiveComparison.run(
      directory: directory.file("images"), pid: target.pid)
    #expect(live.isEqual, "\(live)")
  }

  /// Without the verification pages may be lost, and often are: the README says so.
  @Test(
    "--verify-final finds what aio and another process wrote unseen, if they rest in the freeze",
    arguments: ["aio", "remote"])
  func unseen(_ how: String) throws {
    let target = try Workload("pinned", ["how=\(how)", "pages=512", "rate=20000"])
    defer { target.program.end() }
    var found: UInt64 = 0
    for run in 0..<3 {
      let directory = try TemporaryDirectory()
      let path = directory.file("images")
      let summary = try dump(
        target, to: path,
        {
          $0.scan = .live
          $0.verifiesFinal = true
        }
      ) { event in
        guard case .freezePredicted = event else { return }
        target.program.send("stop")
        _ = target.program.readLine()
      }
      found += try #require(summary.freeze?.pagesFoundByVerification)
      let live = try LiveComparison.run(directory: path, pid: target.pid)
      #expect(live.isEqual, "run \(run): \(live)")
      kill(target.pid, SIGCONT)
      target.program.send("go")
      _ = target.program.readLine()
    }
    // Its slow writes hold on to their page for longer than a round takes.
    if how == "remote" { #expect(found > 0, "tracking alone had seen all: a weak test") }
    print("\(how): the verification found \(found) pages")
  }

  @Test("what fdinfo tells of direct I/O and registered buffers is understood") func signs() {
    var signs = PinnedWriters()
    signs.add(fdinfo: "pos:\t0\nflags:\t0100002\nmnt_id:\t24\n", of: "3")
    #expect(signs == PinnedWriters())
    signs.add(fdinfo: "pos:\t0\nflags:\t0140000\nmnt_id:\t24\n", of: "4")
    #expect(signs.hasDirectIO && signs.needsStoppedScan)
    signs.add(
      fdinfo: "flags:\t02\nSqMask:\t0x3\nUserFiles:\t0\nUserBufs:\t2\n    0: 0x7f0000001800/4096\n"
        + "    1: 0x7f0000010000/1\nPollList:\n", of: "5")
    #expect(signs.rings == ["5"])
    #expect(
      signs.fixedBuffers == [
        PageRange(start: 0x7f00_0000_1000, pageCount: 2),
        PageRange(start: 0x7f00_0001_0000, pageCount: 1),
      ])
  }

  @Test(
    "requests that a ring has not answered are counted",
    arguments: [
      ("SqHead:\t812\nCqTail:\t812\n", 0), ("SqHead:\t815\nCachedSqHead:\t1\nCqTail:\t812\n", 3),
      ("SqHead:\t1\nCqTail:\t4294967295\n", 2), ("SqHead:\t5\nCqTail:\t9\n", 0), ("pos:\t0\n", 0),
    ]) func inFlight(_ fdinfo: String, _ count: UInt32)
  {
    #expect(PinnedWriters.requestsInFlight(fdinfo: fdinfo) == count)
  }

  private func dump(
    _ target: Workload, to path: String, _ change: (inout PredumpOptions) -> Void,
    onEvent: @escaping @Sendable (PredumpEvent) -> Void = { _ in }
  ) throws -> PredumpSummary {
    var options = PredumpOptions(pid: target.pid, imagesDirectory: path)
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.maxRounds = 4
    options.policy.thresholdPages = 0
    options.leave = .stopped
    change(&options)
    return try Predump.run(options, onEvent: onEvent)
  }
}
