import Foundation
import Kernel
import TestSupport
import Testing
import Tracee

/// Attaching to a process, or freezing it, again and again, while it looks at itself.
enum Disturbance: String, CaseIterable, CustomTestStringConvertible {
  case attach, freeze

  var testDescription: String { rawValue }

  /// How often each is done to each target; `MEMDUMP_MATRIX_COUNT` says otherwise. 200 take some
  /// minutes.
  static let count =
    ProcessInfo.processInfo.environment["MEMDUMP_MATRIX_COUNT"]
    .flatMap { Int($0) } ?? 24

  /// Does it once. The freeze lasts long enough for something to happen in it.
  func once(_ target: borrowing TargetProcess) throws {
    switch self {
    case .attach: _ = try UserfaultfdInjection.inject(into: target)
    case .freeze:
      let frozen = try FrozenProcess(freezing: target, timeoutNanoseconds: 2_000_000_000)
      MonotonicClock.pause(nanoseconds: 300_000)
      _ = try frozen.thaw(leaving: .running)
    }
  }

  /// Does it `times` times, and looks that nothing of it is left.
  func run(_ pid: Int32, times: Int = count) throws {
    let target = try TargetProcess(pid: pid)
    let stack = try StackEnd(of: target)
    for _ in 0..<times {
      try once(target)
      // Some instants apart: short waits end in between, long ones are met at other instructions.
      MonotonicClock.pause(nanoseconds: 200_000)
    }
    try expectUntouched(target)
    try stack.expectUnchanged(in: target)
  }
}

/// The lowest bytes of `[stack]`, where a signal frame goes, and which hardly any workload uses.
struct StackEnd {
  private static let byteCount = 32 * 1024

  private let start: UInt64
  private let bytes: [UInt8]

  init(of target: borrowing TargetProcess) throws {
    let stack = try #require(try target.maps().first { $0.path == "[stack]" })
    start = stack.range.start
    bytes = try Self.read(start, Self.byteCount, target)
  }

  /// They are what they were; where the stack grew since, there are only zeros.
  func expectUnchanged(in target: borrowing TargetProcess) throws {
    let now = try #require(try target.maps().first { $0.path == "[stack]" }).range.start
    let grown = try Self.read(now, Int(start - now), target)
    #expect(grown.allSatisfy { $0 == 0 }, "something is left below the stack")
    if bytes.contains(where: { $0 != 0 }) { return }  // the workload uses it, down to its end
    let differs = try Self.read(start, Self.byteCount, target) != bytes
    #expect(!differs, "something is left at the end of the stack")
  }

  private static func read(_ address: UInt64, _ count: Int, _ target: borrowing TargetProcess)
    throws -> [UInt8]
  {
    let memory = ProcessMemory(file: try target.open("mem"))
    var bytes = [UInt8](repeating: 0, count: count)
    try bytes.withUnsafeMutableBytes { try memory.read(at: address, into: $0) }
    return bytes
  }
}

/// Nobody traces a thread of it, none is stopped by a tracer, and it has no userfaultfd.
func expectUntouched(
  _ target: borrowing TargetProcess, sourceLocation: SourceLocation = #_sourceLocation
) throws {
  for tid in try target.threadIDs() {
    guard let bytes = try? target.read("task/\(tid)/status"),
      let stat = try? ProcessStat(parsing: target.read("task/\(tid)/stat"))
    else { continue }
    #expect(ProcessStatus(parsing: bytes).tracer == 0, sourceLocation: sourceLocation)
    #expect(stat.state != "t", "thread \(tid)", sourceLocation: sourceLocation)
  }
  for name in try target.names(in: "fd") {
    let link = (try? target.link("fd/\(name)")) ?? ""
    #expect(!link.contains("userfaultfd"), "descriptor \(name)", sourceLocation: sourceLocation)
  }
}

extension Workload {
  /// Asks it what it has seen.
  func expectNoAnomaly(sourceLocation: SourceLocation = #_sourceLocation) {
    let report = ask("report")
    #expect(report.hasPrefix("ok "), "\(report)", sourceLocation: sourceLocation)
  }

  /// Sends a command and returns the answer.
  func ask(_ command: String) -> String {
    program.send(command)
    return program.readLine() ?? "it ended"
  }

  /// A number that its report names.
  func reported(_ key: String) -> Int {
    for word in ask("report").split(separator: " ") where word.hasPrefix(key + "=") {
      return Int(word.dropFirst(key.count + 1)) ?? -1
    }
    return -1
  }
}
