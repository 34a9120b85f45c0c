import Foundation
import TestSupport
import Testing

/// Dumps that work, and what is said of them.
@Suite(.serialized) struct DumpTests {
  private let scratch: TemporaryDirectory
  private let workload: Workload
  private var images: String { scratch.file("images") }

  init() throws {
    scratch = try TemporaryDirectory()
    workload = try Workload("stamp", ["pages=2048", "rate=200"])
  }

  private func predump(_ more: String...) throws -> Memdump.Outcome {
    try Memdump.run(
      ["predump", "--pid", "\(workload.pid)", "--images-dir", images, "--no-sync"] + more)
  }

  @Test("a dump tells people of its rounds, and can be restored") func forPeople() throws {
    let outcome = try predump()
    #expect(outcome.status == 0 || outcome.status == 3, "\(outcome.err)")
    let rounds = outcome.out.filter { $0.contains("KiB/s") || $0.contains("MiB/s") }
    #expect(rounds.count >= 2)
    #expect(outcome.out.contains { $0.hasPrefix("Freeze: predicted ") })
    #expect(outcome.out.contains { $0.hasPrefix("Freeze: took ") })
    #expect(outcome.out.contains { $0.hasPrefix("Dumped workload (\(workload.pid))") })
    #expect(!outcome.out.joined().contains("\u{1b}"), "colours in a pipe")
    expectFree(workload.pid)
    let check = try Memdump.run(["restore-check", images])
    #expect(check.status == 0)
    #expect(check.out.last == "\(images): restorable")
  }

  @Test("--quiet says nothing of a dump that works") func quiet() throws {
    let outcome = try predump("--quiet")
    #expect(outcome.status == 0 || outcome.status == 3)
    #expect(outcome.out.isEmpty)
    #expect(outcome.err.isEmpty)
  }

  @Test("--color always colours, also a pipe") func color() throws {
    let outcome = try predump("--color", "always")
    #expect(outcome.out.contains { $0.contains("\u{1b}[") })
  }

  @Test("with --json every line is an event of schema 1") func events() throws {
    let events = try predump("--json", "--verbose").events()
    #expect(events.allSatisfy { $0["schema"] == 1 && $0.name != nil })
    let names = events.compactMap(\.name).filter { $0 != "progress" && $0 != "warning" }
    #expect(names.first == "attached")
    #expect(Array(names.suffix(4)) == ["prediction", "thawed", "round", "summary"])
    let summary = try #require(events.last)
    let rounds: Int = names.count { $0 == "round" }
    #expect(summary["rounds"] == rounds)
    let freeze: [String: Any] = try #require(summary["freeze"])
    #expect(freeze["frozen_ns"] != nil)
  }

  @Test("--no-final: the chain is sound, and said to be not restorable yet") func noFinal() throws {
    #expect(try predump("--no-final").status == 0)
    let check = try Memdump.run(["restore-check", "--json", images])
    #expect(check.status == 13)
    let events = try check.events()
    #expect(events.first?["verdict"] == "consistent-not-restorable")
    #expect(events.last?.name == "error")
    expectFree(workload.pid)
  }

  @Test(
    "--scan says whether rounds stop the process for their scans", arguments: ["stopped", "live"])
  func scans(mode: String) throws {
    let events = try predump("--json", "--scan", mode, "--leave", "stopped").events()
    let rounds = events.filter { $0.name == "round" && $0["kind"] == "live" }
    #expect(!rounds.isEmpty)
    for round in rounds {
      let stop: Int? = round["scan_stop_ns"]
      #expect((stop != nil) == (mode == "stopped"))
    }
    #expect(try Memdump.run(["restore-check", "--pid", "\(workload.pid)", images]).status == 0)
  }

  @Test("--verify-final says how many pages it found") func verifies() throws {
    let events = try predump("--json", "--verify-final", "--leave", "stopped").events()
    let thawed = try #require(events.first { $0.name == "thawed" })
    #expect(thawed["pages_found_by_verification"] == 0, "tracking loses no store")
    #expect(try Memdump.run(["restore-check", "--pid", "\(workload.pid)", images]).status == 0)
    kill(workload.pid, SIGCONT)
  }

  @Test("--leave stopped leaves it stopped, and traced by nobody") func stopped() throws {
    #expect([0, 3].contains(try predump("--leave", "stopped").status))
    let state = ProcessState(of: workload.pid)
    #expect(state.letter == "T")
    #expect(state.tracer == 0)
    #expect(!state.isTracked)
  }

  @Test("--leave killed leaves nothing") func killed() throws {
    #expect([0, 3].contains(try predump("--leave", "killed").status))
    #expect(workload.program.wait() == SIGKILL)
  }

  @Test("inspect lists as many pages as it sums up", arguments: ["lz4", "none"])
  func inspect(format: String) throws {
    #expect([0, 3].contains(try predump("--compress", format).status))
    let outcome = try Memdump.run(["inspect", "--entries", "--json", images])
    #expect(outcome.status == 0)
    let events = try outcome.events()
    let head = try #require(events.first)
    #expect(head.name == "inspect")
    let rounds: [[String: Any]] = try #require(head["rounds"])
    #expect(rounds.count >= 2)
    for round in rounds {
      let name = round["name"] as? String
      let entries = events.dropFirst().filter { $0["round"] == name }
      let stored = entries.filter { ($0["flags"] as String?)?.contains("PE_PRESENT") == true }
      let pages = stored.compactMap { $0["nr_pages"] as Int? }.reduce(0, +)
      #expect(pages == round["pages_stored"] as? Int)
      #expect(entries.allSatisfy { ($0["vaddr"] as String?)?.hasPrefix("0x") == true })
    }
    #expect(try Memdump.run(["inspect", images]).status == 0)
  }

  @Test("directories of CRIU's are shown as far as they go") func plainCRIU() throws {
    #expect([0, 3].contains(try predump("--compress", "none").status))
    let files = FileManager.default
    try files.removeItem(atPath: images + "/memdump-session.img")
    for round in try files.contentsOfDirectory(atPath: images) where round != "latest" {
      try files.removeItem(atPath: "\(images)/\(round)/memdump-\(workload.pid).img")
    }
    let outcome = try Memdump.run(["inspect", "--json", images])
    #expect(outcome.status == 0, "\(outcome.err)")
    let rounds: [[String: Any]] = try #require(try outcome.events().first?["rounds"])
    let top = try #require(rounds.last)
    #expect(top["format"] as? String == "criu")
    let vmas = try #require(top["vmas"] as? [[String: Any]])
    let stored = vmas.compactMap { $0["pages_stored"] as? Int }.reduce(0, +)
    #expect(stored > 0)
    #expect(stored == top["pages_stored"] as? Int)
    #expect(try Memdump.run(["inspect", images]).status == 0)
  }

  @Test("damage is found and named") func damage() throws {
    #expect([0, 3].contains(try predump().status))
    let pages = URL(fileURLWithPath: images + "/round-001/pages-1.img")
    var bytes = try Data(contentsOf: pages)
    bytes[bytes.count / 2] ^= 1
    try bytes.write(to: pages)
    let check = try Memdump.run(["restore-check", "--json", images])
    #expect(check.status == 12)
    let findings: [[String: Any]] = try #require(try check.events().first?["findings"])
    let first = try #require(findings.first)
    #expect((first["file"] as? String)?.hasSuffix("round-001/pages-1.img") == true)
    #expect((first["address"] as? String)?.hasPrefix("0x") == true)
    let text = try Memdump.run(["restore-check", images])
    #expect(text.status == 12)
    #expect(text.out.contains { $0.hasPrefix("damage ") })
  }

  @Test("no images are no images", arguments: ["restore-check", "inspect"])
  func noImages(command: String) throws {
    expectRefusal(try Memdump.run([command, scratch.file("nothing")]), 10)
    expectRefusal(try Memdump.run([command, scratch.path]), 10)
  }

  @Test("restore-check --pid compares with a target that was left stopped") func compare() throws {
    #expect([0, 3].contains(try predump("--leave", "stopped").status))
    let outcome = try Memdump.run(
      ["restore-check", "--json", "--pid", "\(workload.pid)", images])
    #expect(outcome.status == 0, "\(outcome.err)")
    let live: [String: Any] = try #require(try outcome.events().first?["live"])
    #expect(live["equal"] as? Bool == true)
  }

  @Test("restore-check --rebuild builds it anew") func rebuild() throws {
    #expect([0, 3].contains(try predump().status))
    let outcome = try Memdump.run(["restore-check", "--json", "--rebuild", images])
    #expect(outcome.status == 0, "\(outcome.err)")
    let rebuild: [String: Any] = try #require(try outcome.events().first?["rebuild"])
    #expect(rebuild["equal"] as? Bool == true)
  }

  @Test("check finds that a dump can work") func check() throws {
    let outcome = try Memdump.run(["check", "--json", "--pid", "\(workload.pid)"])
    #expect(outcome.status == 0, "\(outcome.err)")
    let items: [[String: Any]] = try #require(try outcome.events().first?["items"])
    #expect(!items.isEmpty)
    #expect(items.allSatisfy { $0["id"] is String && $0["status"] is String })
    expectFree(workload.pid)
  }
}
