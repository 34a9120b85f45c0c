import Foundation
import Kernel
import TestSupport
import Testing

@testable import Predump

@Suite(.serialized) struct HugePagesTests {
  @Test("giving huge pages back never gives a process memory that it did not have")
  func growsNothing() throws {
    // Runs of pages are thrown away all the time: huge pages lose parts of theirs.
    let workload = try Workload(
      "stamp", ["pages=2048", "rate=2000", "thp=1", "drop=1", "drop_pages=16384"])
    let pid = workload.pid
    let target = try TargetProcess(pid: pid)
    let pages = try HugePages(of: pid, remembersPlaces: true)
    let before = try target.hugePageBytes()
    try #require(before >= 16 << 20, "this machine gave no huge pages to test with")
    let deadline = MonotonicClock.now + 10_000_000_000
    while try target.hugePageBytes() > before / 2, MonotonicClock.now < deadline {
      MonotonicClock.pause(nanoseconds: 10_000_000)
    }
    workload.program.send("stop")
    #expect(workload.program.readLine() == "ok")
    let huge = try target.hugePageBytes()
    try #require(huge < before)
    let resident = try target.status().residentBytes
    let report = try #require(pages.finish(budgetNanoseconds: 30_000_000_000) { false })
    #expect(report.bytesBefore > 0)
    #expect(try target.status().residentBytes == resident)
    workload.program.send("check")
    #expect(workload.program.readLine() == "ok")
  }
}
