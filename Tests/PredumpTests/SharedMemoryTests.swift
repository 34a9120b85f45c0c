import Foundation
import Images
import Kernel
import TestSupport
import Testing
import Tracee

@testable import Predump

/// Shared objects, and pages that are written with the bytes that they have. The process changes its
/// memory between the rounds and at no other time, so that the images' entries are known.
@Suite(.serialized) struct SharedMemoryTests {
  private static let pages: UInt64 = 2048

  /// Dumps a `shared` workload; `commands[n]` are obeyed after live round n + 1. There are as many
  /// live rounds as commands.
  private func dump(
    _ kind: String = "memfd", _ commands: [[String]], to path: String,
    _ change: (inout PredumpOptions) -> Void = { _ in },
    check: (PredumpSummary, Workload) throws -> Void
  ) throws {
    let target = try Workload("shared", ["kind=\(kind)", "pages=\(Self.pages)"])
    defer { target.program.end() }
    var options = PredumpOptions(pid: target.pid, imagesDirectory: path)
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.thresholdPages = 0
    options.policy.minShrinkPercent = 0
    options.policy.maxRounds = commands.count
    options.leave = .stopped
    // A round that has to reach the disk is told of when the next one has begun.
    options.sync = false
    change(&options)
    let summary = try Predump.run(options) { event in
      guard case .roundFinished(let round) = event, round.kind == .live else { return }
      for command in commands[round.index - 1] {
        target.program.send(command)
        let answer = target.program.readLine()
        #expect(answer == "ok", "\(command)")
      }
    }
    try #require(summary.rounds.count == commands.count + 1)
    let report = ChainVerifier.verify(path)
    #expect(report.verdict == .restorable, "\(report.findings)")
    let live = try LiveComparison.run(directory: path, pid: target.pid)
    #expect(live.isEqual, "\(live)")
    let rebuilt = try ScratchRebuild.run(directory: path, comparingWith: nil)
    #expect(rebuilt.isEqual, "\(rebuilt)")
    try check(summary, target)
  }

  /// Pages of shared objects that each round stored, and that it took from its parent.
  private func counts(_ path: String) throws -> [[UInt64]] {
    try ChainContents(path).rounds.map { round in
      round.streams.reduce(into: [0, 0]) { sum, stream in
        guard case .sharedObject = stream.stream else { return }
        sum[0] += stream.pagesStored
        sum[1] += stream.pagesFromParent
      }
    }
  }

  @Test(
    "of a shared object, each round stores what changed alone, also the frozen one",
    arguments: ["memfd", "sysv", "anonymous"])
  func changes(_ kind: String) throws {
    let directory = try TemporaryDirectory()
    let path = directory.file("images")
    // Written with the same bytes, written, and written back.
    let commands = [
      ["object 0 100 0", "object 1000 7 1"], ["object 1003 4 0", "object 2047 1 2"],
      ["object 5 1 3"],
    ]
    try dump(kind, commands, to: path) { summary, _ in
      let found = try counts(path)
      #expect(
        found == [
          [Self.pages, 0], [7, Self.pages - 7], [5, Self.pages - 5], [1, Self.pages - 1],
        ])
      let freeze = try #require(summary.freeze)
      #expect(freeze.pagesCompared == Self.pages)
      #expect(freeze.pages < Self.pages / 2, "the object is not copied whole")
    }
  }

  @Test("what was punched out of an object is a hole, and stored when it comes back")
  func holes() throws {
    let directory = try TemporaryDirectory()
    let path = directory.file("images")
    // The last page comes back, with the bytes that the round before last holds of it.
    let commands = [["punch 64 64"], ["object 127 1 0", "punch 0 8"], ["punch 512 512"]]
    try dump("memfd", commands, to: path) { _, _ in
      let found = try counts(path)
      #expect(
        found == [
          [Self.pages, 0], [0, Self.pages - 64], [1, Self.pages - 64 - 8],
          [0, Self.pages - 63 - 8 - 512],
        ])
    }
  }

  @Test("objects come, go, come back, grow, and take another one's place") func identities() throws
  {
    let directory = try TemporaryDirectory()
    let path = directory.file("images")
    // Never more to store in two rounds one after the other, which the policy would call a stall.
    let commands = [
      ["close"], ["open", "object 3 1 1"], [], ["grow 3000", "object 4000 10 1"], ["grow 64"],
      ["new", "object 10 20 0"], ["object 11 1 4"], ["close"], ["open"],
    ]
    try dump("memfd", commands, to: path) { _, _ in
      let found = try counts(path)
      #expect(found[1] == [0, 0])
      #expect(found[2] == [Self.pages, 0], "it was in no round before this one")
      #expect(found[3] == [0, Self.pages])
      #expect(found[4] == [Self.pages + 10, 0], "its digests were too few")
      #expect(found[5] == [0, Self.pages + 10], "room to grow was left")
      #expect(found[6] == [20, 0])
      #expect(found[7] == [1, 19])
      #expect(found[8] == [0, 0])
      #expect(found[9] == [20, 0])
    }
  }

  @Test(
    "private pages written with the bytes that they have are taken from the parent",
    arguments: [PageCompression.none, .lz4(pagesPerBlock: 16, acceleration: 1)])
  func unchanged(_ compression: PageCompression) throws {
    let directory = try TemporaryDirectory()
    let path = directory.file("images")
    let commands = [
      // Noted from the second round on. All the same; every other page the same.
      ["private 0 500 0"], ["private 0 500 0"],
      (0..<100).map { "private \($0 * 2) 1 1" } + ["private 400 100 0"],
      // Back to what the round before last has; away and back with the same bytes.
      ["private 0 200 0", "drop 600 50"], ["private 600 50 0"], ["private 0 10 0"], [],
    ]
    try dump("memfd", commands, to: path, { $0.compression = compression }) { summary, _ in
      let all = summary.rounds.map { Int($0.unchangedPages) }
      // Pages of libraries are looked at in every round, also when nothing happens.
      let unchanged = all.map { $0 - all[7] }
      #expect(all[0] == 0 && all[1] == 0)
      for (round, pages) in [(2, 500), (3, 100), (4, 100), (6, 10)] {
        #expect(abs(unchanged[round] - pages) < 16, "round \(round + 1): \(all)")
      }
      #expect(abs(unchanged[5]) < 16, "what was a hole is in no parent: \(all)")
      let stored = summary.rounds.map { Int($0.totals.pagesStored) }
      #expect(abs(stored[3] - 100) < 16, "\(stored)")
      #expect(abs(stored[5] - 50) < 16, "\(stored)")
    }
  }

  @Test("pages that share a slot push each other out, and are never taken for each other")
  func slots() throws {
    let digests = try PageDigests(slotCount: 8)
    let page = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 4096)
    defer { page.deallocate() }
    page.initializeMemory(as: UInt8.self, repeating: 0)
    let bytes = try #require(UnsafeRawPointer(page.baseAddress))
    #expect(!digests.isNoted(0, bytes), "zeros are bytes too")
    #expect(!digests.note(0, bytes))
    #expect(digests.note(0, bytes))
    #expect(!digests.isNoted(8 * pageBytes, bytes), "of the same bytes, in the same slot")
    #expect(!digests.note(8 * pageBytes, bytes))
    #expect(!digests.isNoted(0, bytes))
    page[4095] = 1
    #expect(!digests.note(8 * pageBytes, bytes))
    page[4095] = 0
    #expect(!digests.isNoted(8 * pageBytes, bytes), "the older version is forgotten")
  }
}
