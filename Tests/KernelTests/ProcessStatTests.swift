import Foundation
import Kernel
import SystemPackage
import TestSupport
import Testing

@Suite(.serialized) struct ProcessStatTests {
  /// Fields 3 to 52 of proc_pid_stat(5), each its own number but the state.
  private func line(name: String, state: String = "S", flags: UInt64 = 4_194_560) -> [UInt8] {
    var fields = (3...52).map { String($0) }
    fields[0] = state
    fields[9 - 3] = String(flags)
    return Array("42 (\(name)) \(fields.joined(separator: " "))\n".utf8)
  }

  @Test(
    "the fields are found behind any command name",
    arguments: [
      "redis", "", "a b", "(a)", "a) S 1 (b", ") R 2 3", "))))", "(((", "a\nb", "\n)\n", "été",
    ])
  func oddNames(name: String) throws {
    let stat = try ProcessStat(parsing: line(name: name))
    #expect(stat.state == "S")
    #expect(stat.parent == 4)
    #expect(stat.startTicks == 22)
    #expect(stat.codeStart == 26)
    #expect(stat.codeEnd == 27)
    #expect(stat.stackStart == 28)
    #expect(stat.dataStart == 45)
    #expect(stat.dataEnd == 46)
    #expect(stat.breakStart == 47)
    #expect(stat.argumentsStart == 48)
    #expect(stat.argumentsEnd == 49)
    #expect(stat.environmentStart == 50)
    #expect(stat.environmentEnd == 51)
  }

  @Test("a command name that is not UTF-8 does no harm")
  func nameOfAnyBytes() throws {
    var bytes = line(name: "X")
    bytes[4] = 0xff
    #expect(try ProcessStat(parsing: bytes).parent == 4)
  }

  @Test("a kernel thread is known by its flag alone")
  func kernelThread() throws {
    #expect(try ProcessStat(parsing: line(name: "kworker/0:1", flags: 0x0020_8040)).isKernelThread)
    #expect(try !ProcessStat(parsing: line(name: "[kthreadd]")).isKernelThread)
    #expect(try TargetProcess(pid: 2).stat().isKernelThread)
  }

  @Test("what is no stat line is an error", arguments: ["", "42", "42 (a", "42 (a) S 1 2", ")"])
  func malformed(text: String) {
    #expect(throws: KernelError.self) { try ProcessStat(parsing: Array(text.utf8)) }
  }

  @Test("a live process's line holds what is known of it otherwise")
  func liveProcess() throws {
    let target = try Workload("idle")
    let process = try TargetProcess(pid: target.pid)
    let stat = try process.stat()
    #expect(stat.parent == getpid())
    #expect(stat.startTicks == process.startTicks)
    let maps = try process.maps()
    let code = PageRange(start: stat.codeStart & ~4095, end: stat.codeEnd)
    #expect(maps.contains { $0.protection & 4 != 0 && !$0.range.intersection(code).isEmpty })
    let stack = try #require(maps.first { $0.path == "[stack]" })
    #expect(stack.range.start <= stat.stackStart && stat.stackStart < stack.range.end)
  }
}
