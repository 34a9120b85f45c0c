import Foundation
import Kernel
import TestSupport
import Testing

/// Tracking ends with the dump, whoever else holds the userfaultfd: a child that the process forked
/// in the midst of the injected call would.
@Suite(.serialized) struct TrackingEndTests {
  private let scratch: TemporaryDirectory
  private let workload: Workload

  init() throws {
    scratch = try TemporaryDirectory()
    workload = try Workload("stamp", ["pages=4096", "rate=20000", "cold=100"])
  }

  /// Copies of the userfaultfds that a memdump has open.
  private func userfaultfds(of memdump: Int32) throws -> [OwnedDescriptorBox] {
    let process = try TargetProcess(pid: memdump)
    return try process.names(in: "fd").compactMap { name in
      guard let number = Int32(name),
        try process.link("fd/\(name)").contains("userfaultfd")
      else { return nil }
      return OwnedDescriptorBox(try process.copyDescriptor(number))
    }
  }

  /// Arrays hold no values that have one owner.
  private final class OwnedDescriptorBox {
    let descriptor: OwnedDescriptor
    init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }
  }

  @Test(
    "nothing is tracked after the dump, though somebody holds a copy of the userfaultfd",
    arguments: ["final", "no-final", "interrupted"])
  func heldCopy(ending: String) throws {
    let memdump = try Memdump(
      [
        "predump", "--pid", "\(workload.pid)", "--images-dir", scratch.file("images"), "--json",
        "--no-sync", "--target-downtime", "1us", "--threshold-pages", "0", "--max-rounds", "3",
        "--pause-between-rounds", ending == "interrupted" ? "1h" : "200ms",
      ] + (ending == "no-final" ? ["--no-final"] : []))
    #expect(try memdump.wait(for: "round") != nil)
    let copies = try userfaultfds(of: memdump.pid)
    try #require(copies.count == 1)
    #expect(ProcessState(of: workload.pid).isTracked)
    if ending == "interrupted" { memdump.send(SIGINT) }
    let outcome = try memdump.finish()
    #expect((ending == "interrupted" ? [130] : [0, 3]).contains(outcome.status), "\(outcome.err)")
    #expect(!ProcessState(of: workload.pid).isTracked)
    withExtendedLifetime(copies) {}
    expectFree(workload.pid)
    workload.program.send("check")
    #expect(workload.program.readLine()?.hasPrefix("ok") == true)
  }

  @Test("tracking ends with the freeze, not when the images are written") func endsEarly() throws {
    let runs = scratch.file("runs")
    // The round is on disk, the dump is not over.
    let memdump = try Memdump([
      "predump", "--pid", "\(workload.pid)", "--images-dir", scratch.file("images"), "--no-sync",
      "--on-event",
      "if [ $MEMDUMP_EVENT = thawed ]; then touch \(runs); while [ -e \(runs) ]; do sleep 0.05; done; fi",
    ])
    #expect(eventually { FileManager.default.fileExists(atPath: runs) })
    let state = ProcessState(of: workload.pid)
    try FileManager.default.removeItem(atPath: runs)
    #expect(state.isFree, "\(state)")
    #expect([0, 3].contains(try memdump.finish().status))
  }

  @Test("the summary says what the dump cost the process") func slowdown() throws {
    let outcome = try Memdump.run([
      "predump", "--pid", "\(workload.pid)", "--images-dir", scratch.file("images"), "--json",
      "--no-sync", "--target-downtime", "1us", "--threshold-pages", "0", "--max-rounds", "3",
      "--scan", "stopped",
    ])
    let events = try outcome.events()
    let summary = try #require(events.last { $0.name == "summary" })
    let attached: Int = try #require(events.first { $0.name == "attached" }?["stopped_ns"])
    let frozen: Int = try #require(events.first { $0.name == "thawed" }?["frozen_ns"])
    let scans = events.filter { $0.name == "round" }.reduce(0) { $0 + ($1["scan_stop_ns"] ?? 0) }
    #expect(scans > 0)
    #expect(summary["target_stopped_ns"] == attached + scans + frozen)
    let writes: Int = try #require(summary["target_first_writes"])
    let each: Int = try #require(summary["first_write_ns"])
    // Every page that a later round stored had been protected before; few are born meanwhile.
    let later = events.filter { $0.name == "round" }.dropFirst()
    let stored = later.reduce(0) { $0 + ($1["pages_stored"] ?? 0) + ($1["pages_unchanged"] ?? 0) }
    #expect(writes > 0 && writes <= stored, "\(writes) of \(stored)")
    let faults: Int = try #require(summary["target_minor_faults"])
    #expect(writes <= faults)
    #expect(summary["target_first_writes_ns"] == writes * each)
  }
}
