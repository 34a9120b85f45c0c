import Foundation
import TestSupport
import Testing

/// What CRIU's own tool reads in our images is what `inspect` says of them.
///
@Suite(
  .serialized,
  .enabled(if: Crit.path != nil, "MEMDUMP_CRIU_ROOT is not set: there is no crit to ask"))
struct CritTests {
  /// What both tools say of an entry.
  private struct Entry: Equatable {
    let address: String?
    let pages: Int?
    let flags: String?
    let blockSizes: [Int]?

    /// As `crit show` has it.
    init(crit fields: [String: Any]) {
      address = fields["vaddr"] as? String
      pages = fields["nr_pages"] as? Int
      flags = fields["flags"] as? String
      blockSizes = (fields["blocks"] as? [String: Any])?["block_sizes"] as? [Int]
    }

    /// As `memdump inspect` has it.
    init(_ event: Event) {
      address = event["vaddr"]
      pages = event["nr_pages"]
      flags = event["flags"]
      blockSizes = event["block_sizes"]
    }
  }

  @Test("crit show lists the same entries as inspect", arguments: ["lz4", "none"])
  func entries(format: String) throws {
    let scratch = try TemporaryDirectory()
    let images = scratch.file("images")
    let workload = try Workload("stamp", ["pages=2048", "rate=200"])
    let dump = try Memdump.run([
      "predump", "--pid", "\(workload.pid)", "--images-dir", images, "--compress", format,
      "--no-sync",
    ])
    #expect([0, 3].contains(dump.status), "\(dump.err)")
    let events = try Memdump.run(["inspect", "--json", "--entries", images]).events()
    let rounds: [[String: Any]] = try #require(events.first?["rounds"])
    #expect(rounds.count >= 2)
    for round in rounds {
      let name = try #require(round["name"] as? String)
      let pagemap = "pagemap-\(workload.pid).img"
      let shown = try show("\(images)/\(name)/\(pagemap)")
      let ours = events.filter { $0["round"] == name && $0["pagemap"] == pagemap }
      #expect(!shown.isEmpty)
      #expect(ours.map { Entry($0) } == shown)
    }
  }

  /// The entries of a pagemap as `crit show` prints them, without the head.
  private func show(_ path: String) throws -> [Entry] {
    let program = try ChildProgram(try #require(Crit.path), ["show", path], lifetime: 60)
    var text = ""
    while let line = program.readLine() { text += line }
    #expect(program.wait() == 0)
    let image = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
    let entries = try #require(image?["entries"] as? [[String: Any]])
    return entries.dropFirst().map { Entry(crit: $0) }
  }
}
