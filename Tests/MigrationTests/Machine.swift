import Foundation
import TestSupport

/// A pid namespace of its own: another machine, as far as process ids go.
final class Machine {
  private let outer: ChildProgram
  /// Its first process, by our numbers.
  let pid: Int32

  /// Whether namespaces can be made here.
  static var isAvailable: Bool {
    if DumpedTarget.hasCRIU, (try? Machine()) != nil { return true }
    print("not run: no pid namespace can be made here (unshare, nsenter, root)")
    return false
  }

  private struct NoNamespace: Error {}

  init() throws {
    outer = try ChildProgram(
      "/usr/bin/env",
      ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "infinity"])
    let (children, outerPID) = ("/proc/\(outer.pid)/task/\(outer.pid)/children", outer.pid)
    var found: Int32?
    let isThere = eventually {
      let text = (try? String(contentsOfFile: children, encoding: .utf8)) ?? ""
      found = text.split(separator: " ").first.flatMap { Int32($0) }
      guard let found else { return kill(outerPID, 0) != 0 }
      // Until then it is unshare itself, and /proc is not the namespace's.
      let name = try? String(contentsOfFile: "/proc/\(found)/comm", encoding: .utf8)
      return name == "sleep\n"
    }
    guard isThere, let found else { throw NoNamespace() }
    pid = found
  }

  // The namespace ends with its first process.
  deinit { outer.end() }

  /// A command line that runs there.
  func line(_ words: [String]) -> [String] {
    ["nsenter", "--target", "\(pid)", "--pid", "--mount"] + words
  }

  /// The number that we know process `number` of the namespace by; nil if there is none.
  func find(_ number: Int32) -> Int32? {
    let files = FileManager.default
    guard let own = try? files.destinationOfSymbolicLink(atPath: "/proc/\(pid)/ns/pid") else {
      return nil
    }
    for name in (try? files.contentsOfDirectory(atPath: "/proc")) ?? [] {
      guard let candidate = Int32(name),
        let status = try? String(contentsOfFile: "/proc/\(name)/status", encoding: .utf8),
        let line = status.split(separator: "\n").first(where: { $0.hasPrefix("NSpid:") }),
        line.split(separator: "\t").last == "\(number)",
        (try? files.destinationOfSymbolicLink(atPath: "/proc/\(name)/ns/pid")) == own,
        !status.contains("State:\tZ")
      else { continue }
      return candidate
    }
    return nil
  }
}

/// A memdump that a test of a migration started, with what it says.
final class MoveProgram {
  static var path: String { productsDirectory.appendingPathComponent("memdump").path }
  private let program: ChildProgram
  private let errors: String
  private var read: [[String: Any]] = []

  init(_ words: [String], errors: String, environment: [String] = []) throws {
    self.errors = errors
    program = try ChildProgram(
      "/usr/bin/env", environment + words, errors: URL(fileURLWithPath: errors), lifetime: 120)
  }

  var pid: Int32 { program.pid }

  /// Waits for a JSON event; false if it ended without.
  func wait(for event: String, step: String? = nil) -> Bool {
    while let line = program.readLine() {
      guard let fields = Self.parse(line) else { continue }
      read.append(fields)
      if fields["event"] as? String == event, step == nil || fields["step"] as? String == step {
        return true
      }
    }
    return false
  }

  /// Waits for its end.
  ///
  /// - Returns: the exit code, or the signal.
  func finish() -> Int32 {
    while let line = program.readLine() { Self.parse(line).map { read.append($0) } }
    return program.wait()
  }

  /// The events of this name so far.
  func events(_ name: String) -> [[String: Any]] {
    read.filter { $0["event"] as? String == name }
  }

  /// Its standard error.
  var errorText: String { (try? String(contentsOfFile: errors, encoding: .utf8)) ?? "" }

  /// memdump's own number, by ours: nsenter forks for the other pid namespace.
  var memdump: Int32 {
    let name = try? String(contentsOfFile: "/proc/\(pid)/comm", encoding: .utf8)
    if name == "memdump\n" { return pid }
    let path = "/proc/\(pid)/task/\(pid)/children"
    let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
    return text.split(separator: " ").first.flatMap { Int32($0) } ?? pid
  }

  func send(_ signal: Int32) { kill(memdump, signal) }

  private static func parse(_ line: String) -> [String: Any]? {
    try? JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
  }
}
