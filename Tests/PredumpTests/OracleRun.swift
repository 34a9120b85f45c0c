import Foundation
import Images
import Kernel
import TestSupport
import Tracee

@testable import Predump

/// One process, dumped once and compared.
struct OracleRun {
  /// What one run found.
  struct Outcome {
    /// In words; empty if the images are right.
    var problems: [String] = []
    /// Whether the images do not hold what the process does: the worst that can be.
    var isLoss = false
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
  /// How the engine is broken on purpose.
  var faults = EngineFaultPlan()

  /// The seeds to run: one, so many fresh ones, or the same ones as always.
  static func seeds(_ environment: [String: String]) -> [UInt64] {
    if let seed = environment["MEMDUMP_ORACLE_SEED"].flatMap({ UInt64($0) }) { return [seed] }
    if let count = environment["MEMDUMP_ORACLE_SEEDS"].flatMap({ Int($0) }) {
      return (0..<count).map { _ in .random(in: 0..<1 << 48) }
    }
    return Array(1...200)
  }

  /// Runs the process, dumps it, and compares. A thread that a busy machine does not let come to a
  /// stop in time makes the dump give up, which loses nothing: it is tried again.
  func play() throws -> Outcome {
    for _ in 0..<4 {
      if let outcome = try attempt() { return outcome }
    }
    return Outcome(problems: ["the process did not come to a stop in four attempts"])
  }

  /// - Returns: nil if the process did not come to a stop in time.
  private func attempt() throws -> Outcome? {
    var random = SeededRandom(seed: seed)
    let directory = try TemporaryDirectory()
    let images = directory.file("images")
    let target = try Workload(
      "hostile",
      [
        "seed=\(seed)", "ops=\(2 * operations)",
        "rate=\(Int.random(in: 10_000...50_000, using: &random))",
        "threads=\(Int.random(in: 0...2, using: &random))",
      ])
    defer { target.program.end() }
    let pid = target.pid
    let options = options(pid, images, &random)
    var outcome = Outcome()
    do {
      let pauses = pauses(options.policy.maxRounds, &random)
      let summary = try Predump.run(options) { event in
        guard case .roundFinished(let round) = event, round.kind == .live else { return }
        // The process goes on while the dump waits here, as long as the seed says.
        let isLast = round.verdict != .nextRound
        target.program.send("until \(isLast ? operations : pauses[round.index - 1])")
        _ = target.program.readLine()
      }
      outcome.rounds = summary.rounds.count - 1
    } catch .freeze {
      return nil
    } catch {
      outcome.problems.append("the dump failed: \(error)")
      return outcome
    }
    let comparison: MemoryComparison
    do {
      comparison = try LiveComparison.run(directory: images, pid: pid)
    } catch {
      outcome.problems.append("the comparison failed: \(error)")
      return outcome
    }
    outcome.pagesCompared = comparison.pagesCompared
    outcome.operations = try Self.number(at: try target.number("operations"), of: pid)
    if !comparison.isEqual {
      outcome.isLoss = true
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

  private func options(_ pid: Int32, _ images: String, _ random: inout SeededRandom)
    -> PredumpOptions
  {
    var options = PredumpOptions(pid: pid, imagesDirectory: images)
    if Bool.random(using: &random) {
      options.compression = .none
    } else {
      let block = 1 << Int.random(in: 0...6, using: &random)
      options.compression = .lz4(pagesPerBlock: block, acceleration: 1)
    }
    // Never short enough, so that there are as many live rounds as the seed wants.
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.thresholdPages = 0
    options.policy.minShrinkPercent = 0
    options.policy.maxRounds = Int.random(in: 1...6, using: &random)
    if Int.random(in: 0..<4, using: &random) == 0 { options.freezeMemoryBytes = 64 * pageBytes }
    // Small ones are full at every turn.
    options.tuning.vectorCount = [1, 2, 3, 16, 4096].randomElement(using: &random) ?? 1
    options.tuning.pieceLimits.heldPages = [1, 7, 64, 4096].randomElement(using: &random) ?? 1
    options.tuning.pieceLimits.leastStillPages = [1, 1024].randomElement(using: &random) ?? 1
    options.tuning.hotPageLimit = ([0, 3, 100, .max] as [UInt64]).randomElement(using: &random)
    options.tuning.faults = faults
    options.leave = .stopped
    options.sync = false
    return options
  }

  /// Operations that must be done before each of the live rounds that follow another one.
  private func pauses(_ rounds: Int, _ random: inout SeededRandom) -> [UInt64] {
    (0..<rounds).map { _ in UInt64.random(in: 0...operations, using: &random) }.sorted()
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
