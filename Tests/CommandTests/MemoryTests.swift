import Foundation
import TestSupport
import Testing

/// What memdump itself takes.
@Suite(.serialized) struct MemoryTests {
  @Test("memdump's own memory is bounded, and does not grow with the target") func bounded() throws
  {
    let gibibyte = 1 << 18  // pages
    let small = try peakBytes(ofDumping: gibibyte)
    let large = try peakBytes(ofDumping: 4 * gibibyte)
    #expect(small < 128 << 20)
    #expect(large < 128 << 20)
    // The digests of stored pages: 16 bytes each, 32 MiB at most.
    let digests = (min(4 * gibibyte, 1 << 21) - gibibyte) * 16
    #expect(
      Double(large) < Double(small) * 1.1 + Double(digests),
      "\(small) bytes for 1 GiB, \(large) for 4 GiB")
  }

  @Test("16 TiB of untouched address space cost neither memdump nor the target anything")
  func sparse() throws {
    let workload = try Workload("idle", ["reserve=16384G"])
    let scratch = try TemporaryDirectory()
    let before = ProcessState.kilobytes("VmPTE", of: workload.pid)
    let outcome = try Memdump.run(
      [
        "predump", "--pid", "\(workload.pid)", "--images-dir", scratch.file("images"), "--no-sync",
        "--json", "--leave", "stopped",
      ])
    let summary = try #require(try outcome.events().last)
    let peak: Int = try #require(summary["peak_resident_bytes"])
    #expect(peak < 64 << 20)
    // Marking what was never touched would take 2 MiB of page tables for each GiB.
    #expect(ProcessState.kilobytes("VmPTE", of: workload.pid) - before < 64)
    let check = try Memdump.run(
      ["restore-check", scratch.file("images"), "--pid", "\(workload.pid)", "--rebuild"])
    #expect(check.status == 0, "\(check.err)")
  }

  @Test("memdump's memory follows --memory when the images cannot be written fast enough")
  func follows() throws {
    let least = try peakBytesWhenStalled(["--memory", "2MiB", "--threads", "1"])
    let more = try peakBytesWhenStalled(["--memory", "64MiB", "--threads", "1"])
    #expect(more - least > 56 << 20, "\(least) bytes with 2MiB, \(more) with 64MiB")
    #expect(more - least < 72 << 20, "\(least) bytes with 2MiB, \(more) with 64MiB")
  }

  /// What memdump has taken when all its buffers wait for a reader that does not come.
  private func peakBytesWhenStalled(_ options: [String]) throws -> Int {
    let workload = try Workload("idle", ["pages=65536"])
    let memdump = try Memdump(
      ["predump", "--pid", "\(workload.pid)", "--to", "-", "--compress", "none", "--quiet"]
        + options)
    // It waits: no thread of it has had the processor since the last look, ten times in a row.
    var (last, looks) = ("", 0)
    let isStalled = try eventually {
      let now = try processorTimes(of: memdump.pid)
      looks = now == last && now.contains("memdump-write") ? looks + 1 : 0
      last = now
      return looks == 10
    }
    #expect(isStalled)
    let peak = ProcessState.kilobytes("VmHWM", of: memdump.pid) << 10
    memdump.send(SIGKILL)
    #expect(eventually { ProcessState(of: workload.pid).isFree })
    return peak
  }

  /// Name and processor time (ns) of every thread.
  private func processorTimes(of pid: Int32) throws -> String {
    try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task").sorted().map { tid in
      let task = "/proc/\(pid)/task/\(tid)"
      return ["comm", "schedstat"].map { file in
        let data = FileManager.default.contents(atPath: "\(task)/\(file)") ?? Data()
        return String(decoding: data, as: UTF8.self)
      }.joined()
    }.joined()
  }

  private func peakBytes(ofDumping pages: Int) throws -> Int {
    let workload = try Workload("idle", ["pages=\(pages)"])
    let scratch = try TemporaryDirectory()
    let outcome = try Memdump.run(
      [
        "predump", "--pid", "\(workload.pid)", "--images-dir", scratch.file("images"), "--no-sync",
        "--json",
      ])
    let summary = try #require(try outcome.events().last)
    #expect(summary.name == "summary")
    let peak: Int = try #require(summary["peak_resident_bytes"])
    return peak
  }
}
