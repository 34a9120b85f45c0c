internal import Foundation

/// A run of the `workload` program: a target to look at or to dump. Its modes are listed at the top
/// of `Tests/Workloads/main.c`.
package struct Workload: Sendable {
  /// The program; killed when the last reference to it goes.
  package let program: ChildProgram
  /// The process that its ready line names.
  package let pid: Int32
  /// What its ready line told, such as `["pid": "12", "arena": "0x7f0000000000"]`.
  package let ready: [String: String]

  private enum Unexpected: Error {
    case end(mode: String)
    case noNumber(key: String)
  }

  /// Starts a mode and waits until it is set up.
  ///
  /// - Parameter lifetime: as `ChildProgram`'s.
  package init(_ mode: String, _ options: [String] = [], lifetime: Int? = nil) throws {
    let path = productsDirectory.appendingPathComponent("workload").path
    // Not tied to the thread that starts it: tests hop threads.
    program = try ChildProgram(path, [mode, "pdeathsig=0"] + options, lifetime: lifetime)
    guard let line = program.line(beginning: "ready ") else { throw Unexpected.end(mode: mode) }
    var ready: [String: String] = [:]
    for word in line.split(separator: " ").dropFirst() {
      guard let equals = word.firstIndex(of: "=") else { continue }
      ready[String(word[..<equals])] = String(word[word.index(after: equals)...])
    }
    guard let pid = ready["pid"].flatMap({ Int32($0) }) else {
      throw Unexpected.noNumber(key: "pid")
    }
    self.pid = pid
    self.ready = ready
  }

  /// A number of the ready line, hexadecimal if it begins with 0x.
  package func number(_ key: String) throws -> UInt64 {
    guard let text = ready[key] else { throw Unexpected.noNumber(key: key) }
    let number = text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
    guard let number else { throw Unexpected.noNumber(key: key) }
    return number
  }

  /// Another process id of the ready line.
  package func processID(_ key: String) throws -> Int32 { Int32(try number(key)) }
}
