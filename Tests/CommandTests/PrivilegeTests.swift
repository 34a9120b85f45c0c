import Foundation
import TestSupport
import Testing

/// What each capability gives a memdump that does not run as root, as README's table says.
@Suite(.serialized) struct PrivilegeTests {
  /// memdump's user, and somebody else.
  private static let (own, other) = (65_534, 65_533)
  private static let others = ["sys_ptrace", "dac_override"]

  /// A process, the capabilities that memdump has, and how that ends.
  struct Case: CustomTestStringConvertible, Sendable {
    var user: Int
    /// A program of ours, or `/bin/sleep`, which shares no memory with anybody.
    var workload: [String]?
    var capabilities: [String]
    var options: [String] = []
    /// What the refusal names; nil: it is dumped.
    var refusal: String?

    var testDescription: String {
      "\(user == own ? "own" : "other") \(workload?.joined(separator: " ") ?? "sleep") "
        + "\(options.joined(separator: " ")) [\(capabilities.joined(separator: ","))]"
    }
  }

  static let cases: [Case] = [
    // Private memory of the user's own processes takes nothing.
    Case(user: own, capabilities: []),
    Case(user: own, capabilities: [], options: ["--leave", "stopped"]),
    Case(user: own, capabilities: [], options: ["--on-frozen", "true"]),
    Case(user: own, workload: ["state", "kind=nofile"], capabilities: ["checkpoint_restore"]),
    Case(user: own, capabilities: [], options: ["--tree"]),
    Case(
      user: own, workload: ["tree", "keep=2"], capabilities: ["checkpoint_restore"],
      options: ["--tree"]),
    // Huge pages.
    Case(
      user: own, capabilities: [], options: ["--restore-thp", "1s"], refusal: "CAP_SYS_NICE"),
    Case(user: own, capabilities: ["sys_nice"], options: ["--restore-thp", "1s"]),
    Case(
      user: own, workload: ["stamp", "pages=2048", "thp=1"],
      capabilities: ["checkpoint_restore", "sys_nice"], options: ["--restore-thp", "1s"]),
    // Shared memory.
    Case(
      user: own, workload: ["shared"], capabilities: [], refusal: "CAP_CHECKPOINT_RESTORE"),
    Case(
      user: own, workload: ["shared"], capabilities: others, refusal: "CAP_CHECKPOINT_RESTORE"),
    Case(user: own, workload: ["shared"], capabilities: ["checkpoint_restore"]),
    Case(user: own, workload: ["shared"], capabilities: ["sys_admin"]),
    // Others' processes.
    Case(user: other, capabilities: [], refusal: "CAP_SYS_PTRACE and CAP_DAC_OVERRIDE"),
    Case(user: other, capabilities: ["sys_ptrace"], refusal: "CAP_DAC_OVERRIDE is not held"),
    Case(
      user: other, capabilities: ["dac_override"],
      refusal: "CAP_SYS_PTRACE and CAP_DAC_OVERRIDE"),
    Case(
      user: other, capabilities: ["sys_ptrace", "dac_read_search"],
      refusal: "CAP_DAC_OVERRIDE is not held"),
    Case(user: other, capabilities: others),
    Case(
      user: other, workload: ["shared"], capabilities: others, refusal: "CAP_CHECKPOINT_RESTORE"),
    Case(user: other, workload: ["shared"], capabilities: others + ["checkpoint_restore"]),
    Case(user: 0, capabilities: others),
    // Descriptors.
    Case(
      user: other, workload: ["state", "kind=nofile"],
      capabilities: others + ["checkpoint_restore"], refusal: "CAP_SYS_RESOURCE"),
    // To stop it, or to end it.
    Case(
      user: other, capabilities: others, options: ["--leave", "stopped"], refusal: "CAP_KILL"),
    Case(user: other, capabilities: others, options: ["--leave", "killed"], refusal: "CAP_KILL"),
    Case(user: other, capabilities: others, options: ["--on-frozen", "true"], refusal: "CAP_KILL"),
    Case(user: other, capabilities: others + ["kill"], options: ["--leave", "stopped"]),
    Case(user: other, capabilities: others + ["kill"], options: ["--on-frozen", "true"]),
    // Seccomp filters.
    Case(
      user: own, workload: ["seccomp"], capabilities: ["checkpoint_restore"],
      refusal: "CAP_SYS_ADMIN"),
    Case(user: own, workload: ["seccomp"], capabilities: ["sys_admin"]),
    Case(user: other, workload: ["seccomp"], capabilities: others + ["sys_admin"]),
  ]

  @Test("a capability gives what README says, and no more", arguments: cases)
  func capability(given: Case) throws {
    let scratch = try TemporaryDirectory()
    let target = try start(given, scratch)
    defer { kill(target.pid, SIGKILL) }
    let images = scratch.file("images")
    try FileManager.default.createDirectory(atPath: images, withIntermediateDirectories: false)
    chown(images, UInt32(Self.own), UInt32(Self.own))
    let memdump = scratch.file("memdump")
    try FileManager.default.copyItem(atPath: Memdump.path, toPath: memdump)
    let sets = (["-all"] + given.capabilities.map { "+\($0)" }).joined(separator: ",")
    let outcome = try Memdump.run(
      ["predump", "--pid", "\(target.pid)", "--images-dir", images, "--no-sync"] + given.options,
      wrapper: Self.become(Self.own) + ["--inh-caps=\(sets)", "--ambient-caps=\(sets)"],
      path: memdump)
    if let refusal = given.refusal {
      expectRefusal(outcome, 21, saying: refusal)
      try expectNothingWhole(images)
      // Refused before anything was done: no round was made.
      #expect(try FileManager.default.contentsOfDirectory(atPath: images).isEmpty)
    } else {
      #expect([0, 3].contains(outcome.status), "\(outcome.err)")
      #expect(try Memdump.run(["restore-check", "-q", images]).status == 0)
    }
    if given.refusal == nil, given.options.last == "stopped" {
      #expect(ProcessState(of: target.pid).letter == "T")
    } else {
      expectFree(target.pid)
    }
  }

  private static func become(_ user: Int) -> [String] {
    ["/usr/bin/setpriv", "--reuid=\(user)", "--regid=\(user)", "--clear-groups"]
  }

  /// Starts a program as the user, and waits until it is what it is to be.
  private func start(_ given: Case, _ scratch: TemporaryDirectory) throws -> ChildProgram {
    var line = Self.become(given.user)
    if let workload = given.workload {
      let copy = scratch.file("workload")
      try FileManager.default.copyItem(
        atPath: productsDirectory.appendingPathComponent("workload").path, toPath: copy)
      line += [copy] + workload + ["pdeathsig=0"]
    } else {
      line += ["/bin/sleep", "60"]
    }
    let program = try ChildProgram(line[0], Array(line.dropFirst()), lifetime: 60)
    if given.workload != nil {
      try #require(program.line(beginning: "ready ") != nil)
    } else {
      let sleeps = eventually {
        let name = try? String(contentsOfFile: "/proc/\(program.pid)/comm", encoding: .utf8)
        return name == "sleep\n" && ProcessState(of: program.pid).letter == "S"
      }
      try #require(sleeps)
    }
    return program
  }
}
