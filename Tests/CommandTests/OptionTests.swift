import Foundation
import TestSupport
import Testing

/// Command lines that make no sense.
@Suite(.serialized) struct OptionTests {
  /// Options after a good `predump --pid --images-dir`, and a word that the message must have.
  static let nonsense: [(String, String)] = [
    ("--target-downtime nan", "duration"), ("--target-downtime -5ms", "duration"),
    ("--target-downtime 50", "duration"), ("--target-downtime 1e9s", "duration"),
    ("--target-downtime 0ms", "must be from"), ("--target-downtime 9999h", "must be from"),
    ("--target-downtime 1.5.5s", "duration"), ("--target-downtime ms", "duration"),
    ("--max-rounds 0", "whole number"), ("--max-rounds -1", "whole number"),
    ("--max-rounds 1.5", "whole number"), ("--max-rounds 99999999999999999999", "whole number"),
    ("--max-time inf", "duration"), ("--threshold-pages -1", "whole number"),
    ("--min-shrink 101", "whole number"), ("--min-shrink 10%", "whole number"),
    ("--on-stall maybe", "final, abort"), ("--compress gzip", "lz4"),
    ("--compress-block 5000", "multiple"), ("--compress-block 8MiB", "must be from"),
    ("--compress-block 0", "must be from"), ("--compress-acceleration 0", "whole number"),
    ("--leave asleep", "running, stopped, killed"), ("--no-final --leave killed", "--no-final"),
    ("--memory 4MiB --threads 8", "--memory must be at least 10MiB"),
    ("--memory 16MiB --compress-block 4MiB --threads 1", "at least 24MiB"),
    ("--memory 0", "must be from"), ("--memory lots", "size"),
    ("--threads 0", "whole number"), ("--threads 100000", "whole number"),
    ("--freeze-timeout -1s", "duration"), ("--freeze-memory 99999999999999999999G", "must be from"),
    ("--freeze-memory 1MB", "size"), ("--color blue", "auto"), ("--progress fancy", "auto"),
    ("--quiet --verbose", "contradict"), ("--pid 0", "whole number"), ("--pid -1", "whole number"),
    ("--pid self", "whole number"), ("--pid 4294967297", "whole number"), ("--bogus", "--bogus"),
    ("--images-dir", "--images-dir"), ("more", "more"),
    ("--nice 20", "whole number"), ("--ionice realtime", "idle, best-effort"),
    ("--ionice best-effort:8", "idle, best-effort"), ("--restore-thp 0s", "must be from"),
    ("--hook-timeout 0s", "must be from"), ("--no-final --on-frozen true", "--no-final"),
  ]

  @Test("nonsense is named, and nothing is touched", arguments: OptionTests.nonsense)
  func refused(options: String, word: String) throws {
    let scratch = try TemporaryDirectory()
    let images = scratch.file("images")
    // Were the options accepted, the target would be gone, and the exit code 20.
    let ended = try ChildProgram("/bin/true", [])
    _ = ended.wait()
    let arguments =
      ["predump", "--pid", "\(ended.pid)", "--images-dir", images]
      + options.split(separator: " ").map { String($0) }
    let outcome = try Memdump.run(arguments)
    expectRefusal(outcome, 64, saying: word)
    #expect(outcome.out.isEmpty)
    #expect(!FileManager.default.fileExists(atPath: images))
  }

  /// Command lines that lack something or name what does not exist.
  static let incomplete: [[String]] = [
    ["frobnicate"], ["predump"], ["predump", "--pid", "1"], ["predump", "--images-dir", "/x"],
    ["predump", "--pid", "1", "--images-dir", ""], ["restore-check"], ["inspect"],
    ["inspect", "a", "b"], ["check", "--pid", "x"], ["restore-check", "x", "--pid", "0"],
    ["--frobnicate"],
  ]

  @Test("what is missing or unknown is named", arguments: OptionTests.incomplete)
  func lacking(arguments: [String]) throws {
    expectRefusal(try Memdump.run(arguments), 64)
  }

  /// Command lines with a misspelt option, and the option.
  static let misspelt: [([String], String)] = [
    (["predump", "--pidd", "1", "--images-dir", "/x"], "--pidd"),
    (["predump", "--pid", "1", "--image-dir=/x"], "--image-dir"),
    (["predump", "--images-dir", "/x", "--piid=1"], "--piid"),
    (["restore-check", "--rebild"], "--rebild"),
  ]

  @Test("a misspelt option is named, not what it leaves missing", arguments: OptionTests.misspelt)
  func unknown(arguments: [String], name: String) throws {
    expectRefusal(try Memdump.run(arguments), 64, saying: "Unknown option '\(name)'")
  }

  @Test("with --json, wrong usage is an event too", arguments: OptionTests.incomplete)
  func jsonError(arguments: [String]) throws {
    let outcome = try Memdump.run(arguments + ["--json"])
    #expect(outcome.status == 64)
    let event = try #require(try outcome.events().first)
    #expect(outcome.out.count == 1)
    #expect(event.name == "error")
    #expect(event["schema"] == 1)
    #expect(event["exit_code"] == 64)
    #expect(event["kind"] == "usage")
    let message: String? = event["message"]
    #expect(message?.isEmpty == false)
  }

  /// Values at the edges of what is accepted.
  static let sensible = [
    "--target-downtime 250us", "--target-downtime 1.5s", "--target-downtime 1m",
    "--target-downtime .5ms", "--max-time 2m", "--compress-block 4KiB", "--compress-block 4M",
    "--compress-block 262144", "--compress none", "--min-shrink 0", "--threads 1",
    "--freeze-memory 1GiB", "--color never", "--progress plain", "--leave stopped", "--no-final",
  ]

  @Test("sensible values are accepted", arguments: OptionTests.sensible)
  func accepted(options: String) throws {
    let scratch = try TemporaryDirectory()
    let ended = try ChildProgram("/bin/true", [])
    _ = ended.wait()
    let outcome = try Memdump.run(
      ["predump", "--pid", "\(ended.pid)", "--images-dir", scratch.file("images")]
        + options.split(separator: " ").map { String($0) })
    #expect(outcome.status == 20, "\(outcome.err)")
  }
}
