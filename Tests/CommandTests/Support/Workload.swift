import Foundation
import TestSupport

/// A `workload` that a test started.
struct Workload {
  let program: ChildProgram
  /// The words of its ready line.
  let values: [String: String]

  /// Starts it, and waits until it is ready.
  init(_ arguments: String...) throws {
    let path = productsDirectory.appendingPathComponent("workload").path
    program = try ChildProgram(path, arguments + ["pdeathsig=0"], lifetime: 90)
    guard let ready = program.line(beginning: "ready ") else { throw NotReady() }
    values = ready.split(separator: " ").reduce(into: [:]) { values, word in
      let parts = word.split(separator: "=", maxSplits: 1)
      if parts.count == 2 { values[String(parts[0])] = String(parts[1]) }
    }
  }

  /// The pid that its ready line names.
  var pid: Int32 { number("pid") }

  /// A number of its ready line.
  func number(_ key: String) -> Int32 { values[key].flatMap { Int32($0) } ?? -1 }

  private struct NotReady: Error {}
}
