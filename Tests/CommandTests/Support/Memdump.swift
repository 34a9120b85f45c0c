import Foundation
import TestSupport

/// A memdump that a test started: its lines as they come, and how it ended.
final class Memdump {
  /// What a finished run said.
  struct Outcome {
    let status: Int32
    let out: [String]
    let err: [String]

    /// The lines of standard output as JSON objects.
    func events() throws -> [Event] { try out.map { try Event($0) } }
  }

  /// The program of this build.
  static var path: String { productsDirectory.appendingPathComponent("memdump").path }

  private let program: ChildProgram
  private let errors: URL
  private var lines: [String] = []

  /// Starts memdump; `wrapper` is a command that runs the rest of its line, such as setpriv.
  init(_ arguments: [String], wrapper: [String] = [], path: String = Memdump.path) throws {
    let line = wrapper + [path] + arguments
    errors = FileManager.default.temporaryDirectory
      .appendingPathComponent("memdump-stderr-\(UUID().uuidString)")
    program = try ChildProgram(line[0], Array(line.dropFirst()), errors: errors, lifetime: 60)
  }

  deinit { try? FileManager.default.removeItem(at: errors) }

  /// Its process id.
  var pid: Int32 { program.pid }

  /// Runs memdump to its end.
  static func run(_ arguments: [String], wrapper: [String] = [], path: String = Memdump.path)
    throws -> Outcome
  {
    try Memdump(arguments, wrapper: wrapper, path: path).finish()
  }

  /// Waits for the JSON event of this name; nil if memdump ended without one.
  func wait(for event: String) throws -> Event? {
    while let line = program.readLine() {
      lines.append(line)
      let parsed = try Event(line)
      if parsed.name == event { return parsed }
    }
    return nil
  }

  /// What it wrote to standard error so far.
  var errorText: String { (try? String(contentsOf: errors, encoding: .utf8)) ?? "" }

  /// Sends a signal.
  func send(_ signal: Int32) { kill(program.pid, signal) }

  /// Reads what is left and waits for the end.
  func finish() throws -> Outcome {
    while let line = program.readLine() { lines.append(line) }
    let status = program.wait()
    let text = try String(contentsOf: errors, encoding: .utf8)
    return Outcome(
      status: status, out: lines,
      err: text.split(separator: "\n").map { String($0) })
  }
}
