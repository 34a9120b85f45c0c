import Foundation
import TestSupport
import Testing

/// Expects that memdump refused: this exit code, and one line of error on standard error.
func expectRefusal(
  _ outcome: Memdump.Outcome, _ status: Int32, saying words: String = "",
  sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(outcome.status == status, "\(outcome.err)", sourceLocation: sourceLocation)
  let errors = outcome.err.filter { $0.hasPrefix("memdump: error: ") }
  #expect(errors.count == 1, "\(outcome.err)", sourceLocation: sourceLocation)
  #expect(
    words.isEmpty || (errors.first ?? "").contains(words), "\(errors)",
    sourceLocation: sourceLocation)
}

/// Expects that process `pid` runs, untraced and untracked.
func expectFree(_ pid: Int32, sourceLocation: SourceLocation = #_sourceLocation) {
  let isFree = eventually { ProcessState(of: pid).isFree }
  #expect(isFree, "\(ProcessState(of: pid))", sourceLocation: sourceLocation)
}

/// Expects that nobody can take what is in `directory` for a whole dump.
func expectNothingWhole(
  _ directory: String, sourceLocation: SourceLocation = #_sourceLocation
) throws {
  let outcome = try Memdump.run(["restore-check", "-q", directory])
  #expect([10, 13].contains(outcome.status), "\(outcome)", sourceLocation: sourceLocation)
}
