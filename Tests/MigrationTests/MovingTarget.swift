import Foundation
import TestSupport
import Testing

/// A stamped process (see `Tests/Workloads/stamp.c`) that writes all the time, and a machine that it
/// may be moved to. It can say, on either side, whether all its memory is right.
final class MovingTarget {
  let directory: TemporaryDirectory
  let machine: Machine
  let workload: Workload
  let pid: Int32
  let images: String
  private let log: String
  private var turns = 0

  init(_ machine: Machine, pages: Int = 1024) throws {
    self.machine = machine
    directory = try TemporaryDirectory()
    log = directory.file("target.log")
    images = directory.file("images")
    workload = try Workload(
      "stamp",
      [
        "pages=\(pages)", "rate=2000", "threads=3", "drop=1", "detached=1", "log=\(log)",
        "lifetime=300",
      ])
    pid = workload.pid
  }

  deinit {
    kill(pid, SIGKILL)
    if let copy = machine.find(pid) { kill(copy, SIGKILL) }
  }

  // MARK: Both sides of a migration

  /// Starts `memdump receive --restore` there.
  ///
  /// - Parameter source: where it listens, instead of a Unix socket; a TCP port is any free one.
  func receiver(
    _ options: [String] = [], criu: [String] = [], environment: [String] = [],
    at source: String? = nil
  ) throws -> (MoveProgram, String) {
    let source = source ?? "unix:" + directory.file("socket")
    let program = try MoveProgram(
      machine.line(
        ["/usr/bin/env"] + environment + [
          MoveProgram.path, "receive", "--restore", "--images-dir", images, "--from", source,
          "--criu", DumpedTarget.criuPath, "--json",
        ] + options + ["--"] + criu),
      errors: directory.file("receiver.err"))
    try #require(program.wait(for: "listening"), "\(program.errorText)")
    return (program, program.events("listening").first?["at"] as? String ?? source)
  }

  /// Starts `memdump migrate` here.
  func migration(
    of process: Int32? = nil, to place: String, _ options: [String] = [], criu: [String] = [],
    work: String? = nil
  ) throws -> MoveProgram {
    try MoveProgram(
      [
        MoveProgram.path, "migrate", "--pid", "\(process ?? pid)", "--to", place, "--criu",
        DumpedTarget.criuPath, "--json", "--work-dir", work ?? directory.path, "--max-rounds", "3",
        "--target-downtime", "1us", "--threshold-pages", "0", "--outcome-timeout", "5s",
      ] + options + ["--"] + criu, errors: directory.file("migrate.err"))
  }

  // MARK: Where it is

  /// The state here; nil if it has ended.
  var stateHere: Character? {
    let text = (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)) ?? ""
    let letter = text.split(separator: ")").last?.dropFirst().first
    return letter == "Z" ? nil : letter
  }

  /// Whether it runs here, and nobody holds it.
  var runsHere: Bool {
    guard let letter = stateHere, "SRD".contains(letter) else { return false }
    let status = (try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)) ?? ""
    return status.contains("TracerPid:\t0\n")
  }

  /// Whether it is there at all.
  var isThere: Bool { machine.find(pid) != nil }

  /// The directories that migrations left.
  var notes: [String] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []
    return names.filter { $0.hasPrefix("memdump-migrate-") }.map { directory.file($0) }
  }

  /// The CRIU that holds it here, by the note of its migration.
  var holder: Int32? {
    let note = notes.first.flatMap {
      try? String(contentsOfFile: $0 + "/memdump-move", encoding: .utf8)
    }
    let line = (note ?? "").split(separator: "\n").first { $0.hasPrefix("criu ") }
    return line?.split(separator: " ").dropFirst().first.flatMap { Int32($0) }
  }

  /// Whether somebody waits to let it go on should memdump die.
  var isGuarded: Bool {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return names.contains { name in
      let line = (try? String(contentsOfFile: "/proc/\(name)/cmdline", encoding: .utf8)) ?? ""
      return line.hasSuffix("\0memdump-guard\0\(pid)\0")
    }
  }

  /// Asks the process that runs to look at all its memory; what it says.
  func answer() -> String? {
    let before = lines.count
    kill(machine.find(pid) ?? pid, SIGUSR1)
    var answer: String?
    _ = eventually {
      answer = self.lines.dropFirst(before).first
      return answer != nil
    }
    return answer
  }

  private var lines: [String] {
    ((try? String(contentsOfFile: log, encoding: .utf8)) ?? "").split(separator: "\n").map(
      String.init)
  }

  /// Expects that it runs here and nowhere else, with all its memory right, and that nothing of the
  /// migration is left.
  func expectHere(
    _ what: Comment, isClean: Bool = true, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(eventually { self.runsHere }, what, sourceLocation: sourceLocation)
    #expect(eventually { !self.isThere }, what, sourceLocation: sourceLocation)
    #expect(answer() == "ok", what, sourceLocation: sourceLocation)
    // Who is killed removes nothing.
    guard isClean else { return }
    let names = (try? FileManager.default.contentsOfDirectory(atPath: images)) ?? []
    let left = names.filter { $0.hasSuffix(".partial") || $0 == "criu" || $0.hasPrefix("restore-") }
    #expect(left.isEmpty, what, sourceLocation: sourceLocation)
  }

  /// Expects that it runs there and nowhere else, with all its memory right.
  func expectThere(_ what: Comment, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(eventually { self.stateHere == nil }, what, sourceLocation: sourceLocation)
    #expect(isThere, what, sourceLocation: sourceLocation)
    #expect(answer() == "ok", what, sourceLocation: sourceLocation)
  }
}
