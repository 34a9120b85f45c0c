import Foundation
import TestSupport

/// A program as people run it, busy allocating; the sources of those that are ours are in
/// `Tests/Programs`.
final class RealProgram {
  enum Kind: String, CaseIterable {
    case java, node, go, python, addressSanitizer, memcached, redis
  }

  private struct NotReady: Error { let program: String }
  private struct CannotBuild: Error { let command: [String] }

  private static let lifetime = 120

  private let target: ChildProgram
  /// Keeps a server busy; nil for programs that keep themselves so.
  private let load: ChildProgram?

  /// The process to dump.
  var pid: Int32 { target.pid }
  var isRunning: Bool { target.isRunning }

  /// Starts the program and waits until it is at work.
  init(_ kind: Kind, in scratch: TemporaryDirectory) throws {
    let command = try Self.command(kind, scratch)
    target = try ChildProgram("/usr/bin/env", command, lifetime: Self.lifetime)
    if kind == .memcached || kind == .redis {
      load = try ChildProgram(
        "/usr/bin/env",
        ["python3", Self.source("load.py"), kind.rawValue, scratch.file("socket")],
        lifetime: Self.lifetime)
    } else {
      load = nil
    }
    guard (load ?? target).line(beginning: "ready") != nil else {
      throw NotReady(program: command.joined(separator: " "))
    }
  }

  /// How many steps it has done, or how many requests it has answered; nil if it has ended.
  func progress() -> Int? {
    (load ?? target).send("")
    return (load ?? target).readLine().flatMap { Int($0) }
  }

  /// Ends it, its client first.
  func end() {
    load?.end()
    target.end()
  }

  private static func source(_ name: String) -> String {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("Programs/\(name)").path
  }

  private static func command(_ kind: Kind, _ scratch: TemporaryDirectory) throws -> [String] {
    let (program, socket) = (scratch.file("program"), scratch.file("socket"))
    switch kind {
    case .java:
      // Of two processors and little memory it would make do with one collecting thread.
      return ["java", "-Xms64m", "-Xmx64m", "-XX:+UseG1GC", source("Churn.java")]
    case .node: return ["node", "--max-old-space-size=128", source("churn.js")]
    case .go:
      try build(
        ["GOCACHE=\(scratch.file("cache"))", "go", "build", "-o", program, source("churn.go")])
      return [program]
    case .python: return ["python3", source("churn.py")]
    case .addressSanitizer:
      try build(["cc", "-O1", "-pthread", "-fsanitize=address", "-o", program, source("churn.c")])
      // What is freed stays out of use for a while: not more of it than the heap.
      return ["ASAN_OPTIONS=quarantine_size_mb=16:detect_leaks=0", program]
    case .memcached: return ["memcached", "-u", "root", "-s", socket, "-m", "64", "-t", "4"]
    case .redis:
      return [
        "redis-server", "--port", "0", "--unixsocket", socket, "--dir", scratch.path, "--save", "",
        "--loglevel", "warning",
      ]
    }
  }

  private static func build(_ command: [String]) throws {
    let compiler = try ChildProgram("/usr/bin/env", command, lifetime: lifetime)
    if compiler.wait() != 0 { throw CannotBuild(command: command) }
  }
}
