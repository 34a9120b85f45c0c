import Foundation
import Images
import Kernel
import TestSupport
import Testing
import Tracee

@testable import Predump

/// A process whose pages say which version of themselves they are.
@Suite(.serialized) struct StampedTargetTests {
  @Test(
    "every page of the composed image carries the stamp that it had at the freeze",
    arguments: [PageCompression.lz4(pagesPerBlock: 64, acceleration: 1), .none])
  func stamps(_ compression: PageCompression) throws {
    let target = try Workload(
      "stamp", ["pages=8192", "rate=20000", "threads=2", "drop=1", "drop_pages=1024", "cold=0"])
    defer { target.program.end() }
    let directory = try TemporaryDirectory()
    let summary = try dump(target, to: directory.file("images"), compression)
    #expect(summary.rounds.count >= 4, "three live rounds and the frozen one")

    let report = ChainVerifier.verify(directory.file("images"))
    #expect(report.verdict == .restorable, "\(report.findings)")
    let live = try LiveComparison.run(
      directory: directory.file("images"), pid: target.pid)
    #expect(live.isEqual, "\(live)")
    #expect(live.pagesCompared > 8192)
    let rebuilt = try ScratchRebuild.run(
      directory: directory.file("images"), comparingWith: nil)
    #expect(rebuilt.isEqual, "\(rebuilt)")

    try checkStamps(of: target, in: directory.file("images"))
  }

  @Test("pages that are written all the time wait for the freeze, and are right in it")
  func hotPages() throws {
    // All writes go to a twentieth of the pages.
    let target = try Workload("stamp", ["pages=8192", "rate=200000", "hot=5", "cold=0"])
    defer { target.program.end() }
    let directory = try TemporaryDirectory()
    var options = PredumpOptions(pid: target.pid, imagesDirectory: directory.file("images"))
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.minShrinkPercent = 0
    options.policy.maxRounds = 8
    options.tuning.hotPageLimit = .max
    options.leave = .stopped
    let summary = try Predump.run(options) { event in
      // Time for the writer to come to every hot page.
      guard case .roundFinished(let round) = event, round.kind == .live else { return }
      MonotonicClock.pause(nanoseconds: 20_000_000)
    }
    let live = summary.rounds.filter { $0.kind == .live }
    let most = live.map(\.waitingPages).max() ?? 0
    #expect(most > 100, "\(live.map(\.waitingPages)) pages waited")
    let last = try #require(summary.rounds.last)
    // One may hold the bytes again that it had when it was stored.
    #expect(last.totals.pagesStored + last.unchangedPages >= live.last?.waitingPages ?? .max)
    #expect(ChainVerifier.verify(directory.file("images")).verdict == .restorable)
    let comparison = try LiveComparison.run(directory: directory.file("images"), pid: target.pid)
    #expect(comparison.isEqual, "\(comparison)")
    try checkStamps(of: target, in: directory.file("images"))
  }

  @Test("without a final round nothing waits for it")
  func nothingWaitsWithoutFreeze() throws {
    let target = try Workload("stamp", ["pages=1024", "rate=200000", "hot=5", "cold=0"])
    defer { target.program.end() }
    let directory = try TemporaryDirectory()
    var options = PredumpOptions(pid: target.pid, imagesDirectory: directory.file("images"))
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.minShrinkPercent = 0
    options.policy.maxRounds = 6
    options.tuning.hotPageLimit = .max
    options.takesFinalRound = false
    let summary = try Predump.run(options) { _ in }
    #expect(summary.rounds.allSatisfy { $0.waitingPages == 0 })
  }

  @Test("a target that was left running checks itself and finds nothing wrong")
  func unharmed() throws {
    let target = try Workload("stamp", ["pages=8192", "rate=20000", "threads=2", "drop=1"])
    defer { target.program.end() }
    let directory = try TemporaryDirectory()
    for run in 0..<3 {
      _ = try Predump.run(
        PredumpOptions(
          pid: target.pid, imagesDirectory: directory.file("images-\(run)"))
      ) { _ in }
    }
    target.program.send("check")
    #expect(target.program.readLine() == "ok")
  }

  private func dump(_ target: Workload, to path: String, _ compression: PageCompression) throws
    -> PredumpSummary
  {
    var options = PredumpOptions(pid: target.pid, imagesDirectory: path)
    options.compression = compression
    // Never short enough: the policy goes on until it sees that the target keeps writing.
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.maxRounds = 5
    options.leave = .stopped
    return try Predump.run(options) { _ in }
  }

  /// Reads the arena and the table of generations from the image alone, and compares them.
  private func checkStamps(of target: Workload, in path: String) throws {
    let pages = try target.number("pages")
    let arena = try target.number("arena")
    let table = try target.number("table")
    var image = try ComposedImage(
      ImageChain(path), stream: .process(pid: target.pid))
    let tableBytes = try read(
      PageRange(start: table, pageCount: (pages * 8 + pageBytes - 1) / pageBytes), &image)
    var ahead = 0
    for page in 0..<pages {
      let range = PageRange(start: arena + page * pageBytes, pageCount: 1)
      let words = try read(range, &image).withUnsafeBytes { Array($0.bindMemory(to: UInt64.self)) }
      let expected = tableBytes.withUnsafeBytes {
        $0.loadUnaligned(fromByteOffset: Int(page) * 8, as: UInt64.self)
      }
      if expected == 0, words[0] == 0 { continue }
      #expect(words[0] == 0x504d_4154_5344_4d4d && words[1] == page, "page \(page)")
      if words[2] == expected + 1 {
        ahead += 1
      } else {
        #expect(words[2] == expected && words[510] == expected, "page \(page)")
      }
    }
    #expect(ahead <= 2, "each of the two writers may be inside one write")
  }

  private func read(_ range: PageRange, _ image: inout ComposedImage) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Int(range.byteCount))
    for page in 0..<range.pageCount {
      let offset = Int(page * pageBytes)
      try bytes.withUnsafeMutableBytes { buffer in
        let slice = UnsafeMutableRawBufferPointer(
          rebasing: buffer[offset..<(offset + Int(pageBytes))])
        _ = try image.read(range.start + page * pageBytes, into: slice)
      }
    }
    return bytes
  }
}
