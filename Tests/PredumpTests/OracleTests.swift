import Foundation
import Kernel
import TestSupport
import Testing

/// The proof that no write is lost: a process that rearranges and writes its memory at random is
/// dumped in random rounds, and what the images compose to must be its memory, byte for byte.
///
/// A seed decides what the process does and how it is dumped, not when the two meet: one that fails
/// may take a few runs to fail again. `MEMDUMP_ORACLE_SEED` runs one seed, `MEMDUMP_ORACLE_SEEDS`
/// so many from a random one on (without it, the same ones in every run), `MEMDUMP_ORACLE_OPS`
/// operations each.
@Suite(.serialized) struct OracleTests {
  @Test("what is dumped is what the process holds, whatever it does")
  func nothingIsLost() throws {
    let environment = ProcessInfo.processInfo.environment
    var census = OracleCensus()
    for seed in OracleRun.seeds(environment) {
      var run = OracleRun(seed: seed)
      if let count = environment["MEMDUMP_ORACLE_OPS"].flatMap({ UInt64($0) }) {
        run.operations = count
      }
      let outcome = try run.play()
      census.add(outcome)
      #expect(
        outcome.problems.isEmpty,
        "seed \(seed) (MEMDUMP_ORACLE_SEED=\(seed) runs it alone): \(outcome.problems)")
    }
    print("oracle: \(census)")
  }

  #if DEBUG
    @Test("a broken engine is found out", arguments: EngineFault.allCases)
    func everyFaultIsFound(_ fault: EngineFault) throws {
      // Seeds that have found it before go first.
      let known: [EngineFault: UInt64] = [
        .forgetWaiting: 6, .dropRestAtFullVector: 6, .losePartialVector: 13,
      ]
      let first = known[fault] ?? 1
      let seeds = Array(first...200) + Array(1..<first)
      for seed in seeds {
        var run = OracleRun(seed: seed)
        run.faults = EngineFaultPlan(fault)
        let outcome = try run.play()
        if outcome.isLoss {
          print("oracle: \(fault) is found with seed \(seed): \(outcome.problems)")
          return
        }
      }
      Issue.record("\(fault) stays unnoticed for \(seeds.count) seeds")
    }
  #endif
}
