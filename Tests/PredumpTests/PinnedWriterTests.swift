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
        directory: directory.file("images"), pid: target.processID())
      // What is in flight at the freeze may land after its page was copied, and is told.
      #expect(live.pagesDifferent <= UInt64(freeze.requestsInFlight), "run \(run): \(live)")
      #expect(live.vmasDifferent == 0, "run \(run): \(live)")
      kill(try target.processID(), SIGCONT)
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
      directory: directory.file("images"), pid: target.processID())
    #expect(live.isEqual, "\(live)")
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

  @Test("requests that a ring has not answered are counted", arguments: [
    ("SqHead:\t812\nCqTail:\t812\n", 0), ("SqHead:\t815\nCachedSqHead:\t1\nCqTail:\t812\n", 3),
    ("SqHead:\t1\nCqTail:\t4294967295\n", 2), ("SqHead:\t5\nCqTail:\t9\n", 0), ("pos:\t0\n", 0),
  ]) func inFlight(_ fdinfo: String, _ count: UInt32) {
    #expect(PinnedWriters.requestsInFlight(fdinfo: fdinfo) == count)
  }

  private func dump(
    _ target: Workload, to path: String, _ change: (inout PredumpOptions) -> Void
  ) throws -> PredumpSummary {
    var options = PredumpOptions(pid: try target.processID(), imagesDirectory: path)
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.maxRounds = 4
    options.policy.thresholdPages = 0
    options.leave = .stopped
    change(&options)
    return try Predump.run(options) { _ in }
  }
}
