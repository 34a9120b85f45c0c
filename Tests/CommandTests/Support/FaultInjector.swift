import Foundation
import TestSupport

/// Makes one operation of a memdump fail; see Tests/FaultInjector/inject.c.
struct FaultInjector {
  /// One call that can be made to fail.
  struct Operation: CustomStringConvertible {
    let number: Int
    let name: String
    /// The file; for `mmap` the bytes.
    let subject: String

    var file: String { (subject as NSString).lastPathComponent }
    var description: String { "\(name) \(number) on \(subject)" }
  }

  /// What is to go wrong.
  struct Fault: CustomStringConvertible {
    let operation: Operation
    /// nil: only half of the bytes are read or written.
    let errno: Int32?
    /// Whether all later operations of the same name fail too.
    var onwards = false

    var description: String {
      "\(errno.map { String(cString: strerror($0)) } ?? "short")\(onwards ? " onwards" : ""), \(operation)"
    }
  }

  private let library: String
  private let log: String
  private let directory: String

  /// - Parameter directory: what happens below it is counted.
  init(below directory: String, in scratch: TemporaryDirectory) throws {
    self.directory = directory
    library = scratch.file("inject.so")
    log = scratch.file("inject.log")
    let source = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("FaultInjector/inject.c").path
    let compiler = try ChildProgram(
      "/usr/bin/cc",
      ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, source])
    guard compiler.wait() == 0 else { throw NotCompiled() }
  }

  /// Runs memdump; operations of this name fail on files whose path ends so. For those whose number
  /// depends on how threads meet.
  func run(_ arguments: [String], failing name: String, on suffix: String, errno: Int32) throws
    -> Memdump.Outcome
  {
    try? FileManager.default.removeItem(atPath: log)
    return try Memdump.run(
      arguments,
      wrapper: [
        "/usr/bin/env", "LD_PRELOAD=\(library)", "INJECT_DIRECTORY=\(directory)",
        "INJECT_LOG=\(log)", "INJECT_NAME=\(name)", "INJECT_SUFFIX=\(suffix)",
        "INJECT_ERRNO=\(errno)",
      ])
  }

  /// Runs memdump, with a fault or without.
  func run(_ arguments: [String], _ fault: Fault? = nil) throws -> Memdump.Outcome {
    try? FileManager.default.removeItem(atPath: log)
    var wrapper = [
      "/usr/bin/env", "LD_PRELOAD=\(library)", "INJECT_DIRECTORY=\(directory)", "INJECT_LOG=\(log)",
    ]
    if let fault {
      wrapper.append("INJECT_AT=\(fault.operation.number)")
      if let errno = fault.errno { wrapper.append("INJECT_ERRNO=\(errno)") }
      if fault.onwards { wrapper.append("INJECT_ONWARDS=1") }
    }
    return try Memdump.run(arguments, wrapper: wrapper)
  }

  /// The operations of the last run.
  func operations() throws -> [Operation] {
    try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n").compactMap { line in
      let words = line.split(separator: " ", maxSplits: 3).map { String($0) }
      guard words.count == 4, let number = Int(words[1]) else { return nil }
      return Operation(number: number, name: words[2], subject: words[3])
    }
  }

  private struct NotCompiled: Error {}
}
