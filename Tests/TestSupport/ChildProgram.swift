package import Foundation

/// A program that a test started; killed when the test is done with it.
package final class ChildProgram: @unchecked Sendable {
  // Sendable: every member is set up in init and then only used by the test that made it.
  private let process = Process()
  private let input = Pipe()
  private let output = Pipe()
  private var buffered = Data()

  /// Starts the program at `path`.
  ///
  /// - Parameters:
  ///   - errors: the file that gets its standard error; without it, it is the test's own.
  ///   - lifetime: seconds after which it is killed, so that a test of a program that hangs fails.
  package init(
    _ path: String, _ arguments: [String], errors: URL? = nil, lifetime: Int? = nil
  ) throws {
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments
    process.standardInput = input
    process.standardOutput = output
    if let errors {
      try Data().write(to: errors)
      process.standardError = try FileHandle(forWritingTo: errors)
    }
    try process.run()
    if let lifetime {
      let deadline = DispatchTime.now() + .seconds(lifetime)
      DispatchQueue.global().asyncAfter(deadline: deadline) { [weak self] in self?.end() }
    }
  }

  deinit { end() }

  /// Its process id.
  package var pid: Int32 { process.processIdentifier }

  /// Whether it has not ended.
  package var isRunning: Bool { process.isRunning }

  /// The next line that it prints, waiting for one; nil when it ends.
  package func readLine() -> String? {
    while true {
      if let newline = buffered.firstIndex(of: 0x0a) {
        let line = String(decoding: buffered[..<newline], as: UTF8.self)
        buffered = Data(buffered[(newline + 1)...])
        return line
      }
      let more = output.fileHandleForReading.availableData
      if more.isEmpty { return nil }
      buffered.append(more)
    }
  }

  /// The first line that begins with `prefix`; nil when the program ends without one.
  package func line(beginning prefix: String) -> String? {
    while let line = readLine() {
      if line.hasPrefix(prefix) { return line }
    }
    return nil
  }

  /// Sends a line to its standard input.
  package func send(_ line: String) {
    input.fileHandleForWriting.write(Data((line + "\n").utf8))
  }

  /// Waits for its end.
  package func wait() -> Int32 {
    process.waitUntilExit()
    return process.terminationStatus
  }

  /// Kills it and waits for its end.
  package func end() {
    if process.isRunning {
      kill(process.processIdentifier, SIGKILL)
      process.waitUntilExit()
    }
  }
}

/// The directory that holds the executables of this build.
package var productsDirectory: URL {
  URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
}
