import Foundation
import TestSupport
import Testing

/// Programs with collectors, threads and address spaces of their own kinds, dumped while they work.
@Suite(.serialized) struct RealProgramsTests {
  @Test(
    "a program is dumped as it stands, and goes on as if nothing had been",
    arguments: RealProgram.Kind.allCases)
  func isDumped(_ kind: RealProgram.Kind) throws {
    let scratch = try TemporaryDirectory()
    let program = try RealProgram(kind, in: scratch)
    defer { program.end() }
    let images = scratch.file("images")
    if kind == .addressSanitizer {
      #expect(ProcessState.kilobytes("VmSize", of: program.pid) > 16 << 30, "16 TiB")
    }
    let tables = ProcessState.kilobytes("VmPTE", of: program.pid)
    let outcome = try Memdump.run([
      "predump", "--pid", "\(program.pid)", "--images-dir", images, "--no-sync", "--json",
      "--target-downtime", "1us", "--threshold-pages", "0", "--min-shrink", "0",
      "--max-rounds", "3", "--leave", "stopped",
    ])
    #expect([0, 3].contains(outcome.status), "\(outcome.err)")
    let events = try outcome.events()
    let live = events.filter { $0.name == "round" && $0["kind"] == "live" }
    #expect(live.count >= 2)
    let summary = try #require(events.last)
    let peak: Int = try #require(summary["peak_resident_bytes"])
    // The pages of the freeze come on top: how many that are, the program decides.
    let frozen: Int = try #require(events.first { $0.name == "thawed" }?["pages"])
    #expect(peak < 128 << 20 + frozen * 4096, "\(peak) bytes, \(frozen) pages in the freeze")
    // Less than any of its own allocations since explains; tables for what is merely reserved would
    // be 2 MiB for each GiB.
    let growth = ProcessState.kilobytes("VmPTE", of: program.pid) - tables
    #expect(growth < 8 << 10, "\(growth) kB of page tables more")

    let check = try Memdump.run(["restore-check", "--json", images, "--pid", "\(program.pid)"])
    #expect(check.status == 0, "\(check.out) \(check.err)")
    let comparison: [String: Any] = try #require(try check.events().first?["live"])
    #expect(comparison["equal"] as? Bool == true)
    #expect((comparison["pages_compared"] as? Int ?? 0) > 1000)

    // restore-check held it, too: let go of, its threads run into their stop again by themselves.
    #expect(eventually { ProcessState(of: program.pid).letter == "T" })
    kill(program.pid, SIGCONT)
    // It looks at all that it reads, and ends when it finds something else than it has written.
    let before = try #require(program.progress())
    #expect(try eventually { try #require(program.progress()) > before + 100 })
    #expect(ProcessState(of: program.pid).isFree)
  }
}
