import Foundation
import Images
import Kernel
import Predump
import TestSupport
import Tracee

/// One process, dumped once and compared.
struct OracleRun {
  /// What one run found.
  struct Outcome {
    /// In words; empty if the images are right.
    var problems: [String] = []
    /// Operations that the process had done when it stood still.
    var operations: UInt64 = 0
    /// Live rounds.
    var rounds = 0
    /// Pages of the images that were compared.
    var pagesCompared: UInt64 = 0
  }

  /// Decides what the process does and how it is dumped.
  let seed: UInt64
  /// Operations until the process calms down.
  var operations: UInt64 = 2000

  /// The seeds to run: one, so many fresh ones, or the same ones as always.
  static func seeds(_ environment: [String: String]) -> [UInt64] {
    if let seed = environment["MEMDUMP_ORACLE_SEED"].flatMap({ UInt64($0) }) { return [seed] }
    if let count = environment["MEMDUMP_ORACLE_SEEDS"].flatMap({ Int($0) }) {
      return (0..<count).map { _ in .random(in: 0..<1 << 48) }
    }
    return Array(1...200)
  }

  /// Runs the process, dumps it, and compares.
  func play() throws -> Outcome {
    var random = SeededRandom(seed: seed)
    let directory = try TemporaryDirectory()
    let images = directory.file("images")
    let target = try Workload(
      "hostile",
      [
        "seed=\(seed)", "ops=\(operations)", "rate=\(Int.random(in: 4000...16000, using: &random))",
        "threads=\(Int.random(in: 0...2, using: &random))",
      ])
    defer { target.program.end() }
    let pid = try target.processID()
    var options = PredumpOptions(pid: pid, imagesDirectory: images)
    options.compression =
      Bool.random(using: &random) ? .none : .lz4(pagesPerBlock: 1 << Int.random(in: 0...6, using: &random), acceleration: 1)
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.thresholdPages = 0
    options.policy.minShrinkPercent = 0
    options.policy.maxRounds = Int.random(in: 1...6, using: &random)
    options.leave = .stopped
    options.sync = false
    var outcome = Outcome()
    let summary = try Predump.run(options, onEvent: { _ in })
    outcome.rounds = summary.rounds.count - 1
    let comparison = try LiveComparison.run(directory: images, pid: pid)
    outcome.pagesCompared = comparison.pagesCompared
    outcome.operations = try Self.number(at: try target.number("operations"), of: pid)
    if !comparison.isEqual {
      outcome.problems.append(
        "\(comparison.pagesDifferent) pages, \(comparison.vmasDifferent) VMAs differ: "
          + comparison.first.map { "\($0.kind): \($0.message)" }.joined(separator: "; "))
    }
    let report = ChainVerifier.verify(images)
    if report.verdict != .restorable {
      outcome.problems.append("the chain is \(report.verdict): \(report.findings)")
    }
    return outcome
  }

  private static func number(at address: UInt64, of pid: Int32) throws -> UInt64 {
    let memory = ProcessMemory(file: try TargetProcess(pid: pid).open("mem"))
    var value: UInt64 = 0
    try withUnsafeMutableBytes(of: &value) { buffer throws(KernelError) in
      try memory.read(at: address, into: buffer)
    }
    return value
  }
}

/// What many runs amounted to.
struct OracleCensus: CustomStringConvertible {
  private var operations: [UInt64] = []
  private var rounds = 0
  private var pages: UInt64 = 0

  mutating func add(_ outcome: OracleRun.Outcome) {
    operations.append(outcome.operations)
    rounds += outcome.rounds
    pages += outcome.pagesCompared
  }

  var description: String {
    let sorted = operations.sorted()
    let median = sorted.isEmpty ? 0 : sorted[sorted.count / 2]
    return "\(operations.count) runs, \(operations.reduce(0, +)) operations before the freeze (at "
      + "least \(sorted.first ?? 0) a run, median \(median)), \(rounds) live rounds, "
      + "\(pages) pages compared"
  }
}
