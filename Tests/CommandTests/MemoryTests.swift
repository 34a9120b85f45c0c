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
