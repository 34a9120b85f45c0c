import Testing

/// What memdump says of itself.
@Suite struct HelpTests {
  private static let commands = [
    "predump", "receive", "restore-check", "merge", "inspect", "check", "criu-dump", "restore",
    "serve", "migrate", "resolve", "control",
  ]

  @Test("every help names exit codes and has an example", arguments: commands)
  func help(command: String) throws {
    let outcome = try Memdump.run([command, "--help"])
    #expect(outcome.status == 0)
    #expect(outcome.err.isEmpty)
    let text = outcome.out.joined(separator: "\n")
    #expect(text.contains("Exit codes: 0 done"))
    #expect(text.contains("  memdump \(command) "))
    #expect(outcome.out.count <= 80, "more than a screen")
    #expect(outcome.out.allSatisfy { $0.count <= 80 })
  }

  @Test("the main help lists every exit code") func codes() throws {
    let outcome = try Memdump.run(["--help"])
    #expect(outcome.status == 0)
    for code in [0, 1, 3, 10, 12, 13, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 64, 129, 130, 143] {
      let line = outcome.out.first { $0.split(separator: " ").first == "\(code)" }
      #expect(line != nil, "exit code \(code) is missing")
    }
  }

  @Test("the version names the image records' version") func version() throws {
    let outcome = try Memdump.run(["--version"])
    #expect(outcome.status == 0)
    #expect(outcome.out.count == 1)
    #expect(outcome.out.first?.contains("image records: version 1") == true)
  }
}
