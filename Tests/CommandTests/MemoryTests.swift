import TestSupport
import Testing

/// What memdump itself takes.
@Suite(.serialized) struct MemoryTests {
  @Test("memdump's own memory is bounded, and does not grow with the target") func bounded() throws {
    let gibibyte = 1 << 18  // pages
    let small = try peakBytes(ofDumping: gibibyte)
    let large = try peakBytes(ofDumping: 4 * gibibyte)
    #expect(small < 128 << 20)
    #expect(large < 128 << 20)
    #expect(Double(large) < Double(small) * 1.1, "\(small) bytes for 1 GiB, \(large) for 4 GiB")
  }

  private func peakBytes(ofDumping pages: Int) throws -> Int {
    let workload = try Workload("idle", "pages=\(pages)")
    let scratch = try Scratch()
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
