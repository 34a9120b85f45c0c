import Foundation
import TestSupport
import Testing

/// Every file operation of a dump fails once, in every way that fits it. `MEMDUMP_FAULT_SWEEP=all`
/// tries all of them, without it a few of each kind.
@Suite(.serialized) struct FaultTests {
  private typealias Operation = FaultInjector.Operation
  private typealias Fault = FaultInjector.Fault

  private let scratch: TemporaryDirectory
  private let workload: Workload
  private let injector: FaultInjector
  private var images: String { scratch.file("images") }

  init() throws {
    scratch = try TemporaryDirectory()
    workload = try Workload("stamp", ["pages=64", "rate=200"])
    injector = try FaultInjector(below: scratch.file("images"), in: scratch)
  }

  /// A live round and a final one, whatever the process does.
  private func arguments(_ more: [String] = []) -> [String] {
    [
      "predump", "--pid", "\(workload.pid)", "--images-dir", images, "--max-rounds", "1",
      "--threshold-pages", "0",
    ] + more
  }

  @Test("whatever operation fails, the error is clear, the target runs, and nothing looks whole")
  func sweep() throws {
    let all = ProcessInfo.processInfo.environment["MEMDUMP_FAULT_SWEEP"] == "all"
    let clean = try injector.run(arguments())
    #expect([0, 3].contains(clean.status), "\(clean.err)")
    let operations = try injector.operations()
    #expect(operations.count > 100)
    var faults = operations.flatMap { Self.faults(of: $0) }
    if !all { faults = Self.sample(faults) }
    var statuses: [Int32: Int] = [:]
    for fault in faults {
      statuses[try expectHandled(fault), default: 0] += 1
    }
    let told = statuses.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
    print("faults: \(faults.count) in \(operations.count) operations, exit codes \(told)")
  }

  @Test("where the session's last record cannot be written the dump failed, and its images say so")
  func lastRecord() throws {
    _ = try injector.run(arguments())
    let operations = try injector.operations()
    let published = try #require(
      operations.lastIndex { $0.name == "rename" && $0.subject.contains("round-002.partial") })
    let rest = operations[(published + 1)...].filter {
      ["create", "symlink", "write", "fsync", "rename"].contains($0.name)
    }
    #expect(rest.contains { $0.subject.contains("memdump-session.img") })
    for operation in rest {
      // Nor can what is told of the failure afterwards.
      let status = try expectHandled(Fault(operation: operation, errno: EIO, onwards: true))
      #expect(![0, 3].contains(status), "\(operation)")
    }
  }

  @Test(
    "a process that is not to run on does so when its images cannot be written",
    arguments: ["stopped", "killed"])
  func left(state: String) throws {
    let more = ["--leave", state, "--no-sync"]
    let clean = try Workload("stamp", ["pages=64"])
    _ = try injector.run(
      [
        "predump", "--pid", "\(clean.pid)", "--images-dir", images, "--max-rounds", "1",
        "--threshold-pages", "0",
      ] + more)
    // Of the final round's first file and of its last, and when it gets its name.
    let operations = try injector.operations().filter { $0.subject.contains("round-002.partial") }
    let writes = operations.filter { $0.name == "write" }
    let chosen = [writes.first, writes.last, operations.last { $0.name == "rename" }]
    for operation in chosen {
      try FileManager.default.removeItem(atPath: images)
      let outcome = try injector.run(
        arguments(more), Fault(operation: try #require(operation), errno: ENOSPC))
      expectRefusal(outcome, 25)
      expectUnharmed("\(String(describing: operation))")
      try expectNothingWhole(images)
    }
  }

  @Test("a round that cannot be made durable ends the dump, and the next one is not published")
  func lateSync() throws {
    let busy = try Workload("stamp", ["pages=64", "rate=50000"])
    defer { busy.program.end() }
    let arguments = [
      "predump", "--pid", "\(busy.pid)", "--images-dir", images, "--max-rounds", "4",
      "--threshold-pages", "0", "--target-downtime", "1us", "--min-shrink", "0",
    ]
    func rounds() -> [String] {
      let names = (try? FileManager.default.contentsOfDirectory(atPath: images)) ?? []
      return names.filter { $0.hasPrefix("round-") }
    }
    // Its pages; and, once all files are synced, its directory.
    for subject in ["round-001.partial/pages-1.img", "round-001.partial"] {
      let outcome = try injector.run(arguments, failing: "fsync", on: subject, errno: EIO)
      let told = "\(subject): \(outcome.status) \(outcome.err)"
      #expect(outcome.status == 1, "\(told)")
      #expect(outcome.err.contains { $0.contains("round-001") }, "\(told)")
      #expect(eventually { ProcessState(of: busy.pid).isFree }, "\(told)")
      // The second round, which was copied meanwhile, has no parent to build on.
      let begun = try injector.operations().contains { $0.subject.contains("round-002.partial") }
      #expect(begun, "\(told)")
      #expect(rounds() == [], "\(told)")
      try? FileManager.default.removeItem(atPath: images)
    }
    // One that is durable is kept.
    let outcome = try injector.run(
      arguments, failing: "fsync", on: "round-002.partial/pages-1.img", errno: EIO)
    #expect(outcome.status == 1, "\(outcome.err)")
    #expect(rounds() == ["round-001"])
  }

  @Test("with too little memory for memdump the target runs on, and nothing looks whole")
  func littleMemory() throws {
    var statuses: [Int32: Int] = [:]
    // mebibytes of address space
    for limit in stride(from: 24, through: 1224, by: 150) {
      let outcome = try Memdump.run(
        arguments(["--no-sync"]), wrapper: ["/usr/bin/prlimit", "--as=\(limit << 20)"])
      let told = "\(limit) MiB: \(outcome.status) \(outcome.err.last ?? "")"
      statuses[outcome.status, default: 0] += 1
      #expect(outcome.status != SIGKILL, "hangs: \(told)")
      expectUnharmed(told)
      try expectToldApart(outcome, told)
      try? FileManager.default.removeItem(atPath: images)
    }
    #expect((statuses[0] ?? 0) + (statuses[3] ?? 0) > 0)
    print("too little memory: exit codes \(statuses)")
    try expectNextDumpSucceeds("after all limits")
  }

  /// The ways in which an operation can fail.
  private static func faults(of operation: Operation) -> [Fault] {
    func errors(_ numbers: Int32...) -> [Fault] {
      numbers.map { Fault(operation: operation, errno: $0) }
    }
    switch operation.name {
    case "write", "pwrite":
      return errors(ENOSPC, EIO, EDQUOT) + [
        Fault(operation: operation, errno: nil),
        Fault(operation: operation, errno: ENOSPC, onwards: true),
      ]
    case "create", "mkdir": return errors(ENOSPC, EIO, EMFILE)
    case "symlink", "rename": return errors(ENOSPC, EIO)
    case "fsync":
      return errors(EIO, ENOSPC) + [Fault(operation: operation, errno: EIO, onwards: true)]
    case "open": return errors(EIO, EMFILE)
    case "pread": return errors(EIO) + [Fault(operation: operation, errno: nil)]
    case "mmap": return errors(ENOMEM)
    case "pthread_create": return errors(EAGAIN)
    default: return errors(EIO)
    }
  }

  /// Two of each kind of operation, each with another of its faults: one in the middle and the last.
  private static func sample(_ faults: [Fault]) -> [Fault] {
    Dictionary(grouping: faults) { $0.operation.name }.values.flatMap { kind in
      [kind.count * 2 / 5, kind.count - 1].map { kind[$0] }
    }.sorted { $0.operation.number < $1.operation.number }
  }

  /// Nothing depends on these: they tidy up, advise, or belong to the program's own start.
  private static let tolerated: Set<String> = [
    "unlink", "rmdir", "sync_file_range", "statvfs", "mmap",
  ]

  /// - Returns: the exit code.
  private func expectHandled(_ fault: Fault) throws -> Int32 {
    try? FileManager.default.removeItem(atPath: images)
    let outcome = try injector.run(arguments(), fault)
    let hit = try injector.operations().first { $0.number == fault.operation.number }
    let told =
      "\(fault) (hit \(hit.map { "\($0)" } ?? "nothing")): \(outcome.status) \(outcome.err)"
    if let errno = fault.errno, let hit {
      if [0, 3].contains(outcome.status) {
        #expect(Self.tolerated.contains(hit.name), "\(told)")
      } else {
        expectClear(outcome, errno, hit, told)
      }
    } else {
      #expect([0, 3].contains(outcome.status), "\(told)")
    }
    expectUnharmed(told)
    try expectToldApart(outcome, told)
    try? FileManager.default.removeItem(atPath: images)
    try expectNextDumpSucceeds(told)
    return outcome.status
  }

  /// One error, with the file and the kernel's reason, and the code that is documented for it.
  private func expectClear(
    _ outcome: Memdump.Outcome, _ errno: Int32, _ hit: Operation, _ told: String
  ) {
    switch errno {
    case ENOSPC, EDQUOT: #expect(outcome.status == 25, "\(told)")
    default: #expect([1, 26].contains(outcome.status), "\(told)")
    }
    let errors = outcome.err.filter { $0.hasPrefix("memdump: error: ") }
    #expect(errors.count == 1, "\(told)")
    #expect(errors.first?.contains(String(cString: strerror(errno))) == true, "\(told)")
    if hit.subject.hasPrefix("/") {
      // A rename is told by the new name as well as by the old.
      let stem = hit.file.replacingOccurrences(of: ".partial", with: "")
        .replacingOccurrences(of: ".new", with: "")
      #expect(errors.first?.contains(stem == "." ? "images" : stem) == true, "\(told)")
    }
  }

  private func expectUnharmed(_ told: String) {
    let isFree = eventually { ProcessState(of: workload.pid).isFree }
    #expect(isFree, "\(told): \(ProcessState(of: workload.pid))")
    // One that is stopped would never answer.
    if !isFree { return }
    workload.program.send("check")
    let answer = workload.program.readLine() ?? "it ended"
    #expect(answer.hasPrefix("ok"), "\(told): \(answer)")
  }

  /// What is left is called restorable if the dump succeeded, and only then: also where the final
  /// round had its name before the fault came.
  private func expectToldApart(_ outcome: Memdump.Outcome, _ told: String) throws {
    let check = try Memdump.run(["restore-check", "-q", images])
    if [0, 3].contains(outcome.status) {
      #expect(check.status == 0, "\(told): \(check.err)")
    } else {
      #expect([10, 12, 13].contains(check.status), "\(told): \(check.status)")
    }
  }

  private func expectNextDumpSucceeds(_ told: String) throws {
    let next = try Memdump.run(arguments(["--no-sync", "--quiet"]))
    #expect([0, 3].contains(next.status), "\(told), then \(next.status) \(next.err)")
    try? FileManager.default.removeItem(atPath: images)
  }
}
