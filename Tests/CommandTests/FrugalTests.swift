import Foundation
import TestSupport
import Testing

/// What memdump takes for itself, and what it gives back.
@Suite(.serialized) struct FrugalTests {
  private let scratch: TemporaryDirectory
  private var images: String { scratch.file("images") }

  init() throws { scratch = try TemporaryDirectory() }

  /// A dump that has a round behind it and more to come.
  private func startEndless(_ pid: Int32, _ more: [String] = [], wrapper: [String] = []) throws
    -> Memdump
  {
    let memdump = try Memdump(
      [
        "predump", "--pid", "\(pid)", "--images-dir", images, "--json", "--no-sync",
        "--target-downtime", "1us", "--threshold-pages", "0", "--max-rounds", "1000",
        "--pause-between-rounds", "1h",
      ] + more, wrapper: wrapper)
    _ = try memdump.wait(for: "round")
    return memdump
  }

  /// A line's value in the status of each thread, by the thread's name.
  private func threads(of pid: Int32, _ key: String) throws -> [(
    tid: String, name: String, value: String
  )] {
    try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task").compactMap { tid in
      let data = FileManager.default.contents(atPath: "/proc/\(pid)/task/\(tid)/status")
      let lines = String(decoding: data ?? Data(), as: UTF8.self).split(separator: "\n")
      func value(_ key: String) -> String? {
        lines.first { $0.hasPrefix(key + ":") }?.split(separator: "\t").last.map { String($0) }
      }
      guard let name = value("Name"), let value = value(key) else { return nil }
      return (tid, name, value)
    }
  }

  @Test("no thread keeps a capability that it does not need") func capabilities() throws {
    let workload = try Workload("stamp", ["pages=4096", "rate=20000", "cold=100"])
    let memdump = try startEndless(workload.pid)
    // DAC_OVERRIDE, DAC_READ_SEARCH, KILL, SYS_PTRACE, SYS_NICE, CHECKPOINT_RESTORE
    let needed: UInt64 = [1, 2, 5, 19, 23, 40].reduce(0) { $0 | 1 << $1 }
    for set in ["CapEff", "CapPrm"] {
      let held = try threads(of: memdump.pid, set)
      #expect(held.count >= 4, "\(held)")
      for (_, name, value) in held {
        let bits = try #require(UInt64(value, radix: 16))
        let most: UInt64 =
          switch name {
          case "memdump-engine": needed
          case "memdump-write", "memdump-sync": 1 << 1 | 1 << 2
          case "memdump-encode": 1 << 23
          default: 0
          }
        #expect(bits & ~most == 0, "\(name) \(set) \(value)")
      }
    }
    memdump.send(SIGINT)
    #expect(try memdump.finish().status == 130)
    expectFree(workload.pid)
  }

  @Test("compression yields to whoever else wants the processor") func yields() throws {
    let workload = try Workload("stamp", ["pages=16384", "rate=max"])
    let memdump = try Memdump([
      "predump", "--pid", "\(workload.pid)", "--images-dir", images, "--json", "--no-sync",
      "--target-downtime", "1us", "--threshold-pages", "0", "--max-rounds", "1000",
      "--min-shrink", "0",
    ])
    #expect(
      eventually {
        let encoders = try? threads(of: memdump.pid, "Name").filter { $0.name == "memdump-encode" }
        return (encoders ?? []).contains { schedulingPolicy(of: memdump.pid, $0.tid) == "5" }
      })
    memdump.send(SIGINT)
    #expect(try memdump.finish().status == 130)
  }

  /// A thread's scheduling class; 5 is SCHED_IDLE. (proc(5), stat: policy)
  private func schedulingPolicy(of pid: Int32, _ tid: String) -> String? {
    let data = FileManager.default.contents(atPath: "/proc/\(pid)/task/\(tid)/stat") ?? Data()
    let text = String(decoding: data, as: UTF8.self)
    let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
    return fields.count > 38 ? String(fields[38]) : nil
  }

  @Test("--nice and --ionice are memdump's threads' own") func gentle() throws {
    let workload = try Workload("stamp", ["pages=4096", "rate=20000", "cold=100"])
    let memdump = try startEndless(workload.pid, ["--nice", "7", "--ionice", "idle"])
    for (tid, name, _) in try threads(of: memdump.pid, "Name")
    where ["memdump-engine", "memdump-encode", "memdump-write"].contains(name) {
      let stat = try String(
        contentsOfFile: "/proc/\(memdump.pid)/task/\(tid)/stat", encoding: .utf8)
      let fields = stat.split(separator: ")").last?.split(separator: " ") ?? []
      #expect(fields.count > 16 && fields[16] == "7", "\(name): \(stat)")
      #expect(try ChildProgram("/usr/bin/ionice", ["-p", tid]).readLine() == "idle", "\(name)")
    }
    memdump.send(SIGINT)
    #expect(try memdump.finish().status == 130)
    let stat = try String(contentsOfFile: "/proc/\(workload.pid)/stat", encoding: .utf8)
    #expect(stat.split(separator: ")").last?.split(separator: " ")[16] == "0")
  }

  @Test(
    "it compresses on as many processors as it may run on, unless told otherwise",
    arguments: [([], 1), (["--threads", "3"], 3)])
  func affinity(options: [String], count: Int) throws {
    let workload = try Workload("stamp", ["pages=4096", "rate=20000", "cold=100"])
    let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
    let line = status.split(separator: "\n").first { $0.hasPrefix("Cpus_allowed_list") }
    let processor = try #require(line?.split(whereSeparator: { !$0.isNumber }).first)
    let memdump = try startEndless(
      workload.pid, options, wrapper: ["/usr/bin/taskset", "-c", String(processor)])
    let encoders = try threads(of: memdump.pid, "Name").filter { $0.name == "memdump-encode" }
    #expect(encoders.count == count)
    memdump.send(SIGINT)
    #expect(try memdump.finish().status == 130)
  }

  @Test("--restore-thp gives the process its huge pages back", arguments: [false, true])
  func hugePages(restores: Bool) throws {
    let workload = try Workload("stamp", ["pages=16384", "rate=max", "cold=100", "thp=1"])
    let memdump = try Memdump(
      [
        "predump", "--pid", "\(workload.pid)", "--images-dir", images, "--json", "--no-sync",
        "--max-rounds", "3",
      ] + (restores ? ["--restore-thp", "30s"] : []))
    let summary = try #require(try memdump.finish().events().last { $0.name == "summary" })
    let before: Int = try #require(summary["huge_bytes_before"])
    let after: Int = try #require(summary["huge_bytes_after"])
    #expect((summary["target_minor_faults"] ?? 0) > 0)
    try #require(before >= 32 << 20, "this machine gave no huge pages to test with")
    if restores {
      #expect(after == before)
      #expect((summary["huge_bytes_restored"] ?? 0) > 0)
    } else {
      #expect(after < before)
      #expect(summary["huge_bytes_restored"] as Int? == nil)
    }
    #expect(workload.program.isRunning)
    expectFree(workload.pid)
  }
}
