internal import Glibc
internal import Images
internal import Kernel

/// What `Restore.run` is to do.
public struct RestoreOptions: Sendable {
  /// A dump's directory, with CRIU's images in `criu`.
  public var directory: String
  /// Which criu.
  public var criu = CRIUProgram()
  /// Further options for `criu restore`.
  public var arguments: [String] = []
  /// Whether the images are checked first, every byte of them.
  public var checks = true
  /// Threads that decode.
  public var workers: Int

  /// The defaults, for `directory`.
  public init(directory: String) {
    self.directory = directory
    workers = Processors.allowedCount
  }
}

/// What a restore came to.
public struct RestoreSummary: Sendable, Equatable {
  /// The restored root process, as CRIU names it; nil if an option had CRIU tell it elsewhere.
  public var pid: Int32?
  /// Pages that had to be unpacked first, because this CRIU does not read LZ4.
  public var unpackedPages: UInt64
  /// How long the check took (ns).
  public var checkNanoseconds: UInt64
  /// How long unpacking took (ns).
  public var prepareNanoseconds: UInt64
  /// How long `criu restore` took (ns).
  public var criuNanoseconds: UInt64
}

/// Restores a process from a chain and CRIU's images of the rest.
public enum Restore {
  private static let logName = "criu-restore.log"
  private static let pidName = "criu-restore.pid"

  /// Runs `criu restore --restore-detached`; the images stay as they are.
  ///
  /// - Throws: `MigrationError`; `.notRestorable` before anything was done.
  public static func run(_ options: RestoreOptions) throws(MigrationError) -> RestoreSummary {
    try run(options, isHeld: false) { _ in }
  }

  /// As `run(_:)`, with a say in it.
  ///
  /// - Parameters:
  ///   - isHeld: whether it is held once it is complete.
  ///   - whileHeld: called then, when nothing of it has run, with what that took so far. If it throws,
  ///     or if this process dies meanwhile, CRIU kills what it restored.
  static func run(
    _ options: RestoreOptions, isHeld: Bool, whileHeld: (RestoreSummary) throws -> Void
  ) throws(MigrationError) -> RestoreSummary {
    do {
      var summary = RestoreSummary(
        pid: nil, unpackedPages: 0, checkNanoseconds: 0, prepareNanoseconds: 0, criuNanoseconds: 0)
      let began = MonotonicClock.now
      try check(options)
      let checked = MonotonicClock.now
      let prepared = try prepare(options)
      summary.unpackedPages = prepared.mergedPages
      let ready = MonotonicClock.now
      summary.checkNanoseconds = checked - began
      summary.prepareNanoseconds = ready - checked
      summary.pid = try restore(options, prepared.directory, isHeld: isHeld) {
        summary.criuNanoseconds = MonotonicClock.now - ready
        try whileHeld(summary)
      }
      summary.criuNanoseconds = MonotonicClock.now - ready
      return summary
    } catch { throw MigrationError(error) }
  }

  /// CRIU restores wrong memory from a damaged parent and says nothing: the chain is checked here.
  private static func check(_ options: RestoreOptions) throws {
    let session = try Directory.open(options.directory, followSymlink: true)
    let path = session.join(StateImages.directoryName)
    guard try session.names().contains(StateImages.directoryName) else {
      throw ImageError(
        .missingFile, file: path,
        "CRIU's images are missing: the rounds have memory alone; memdump criu-dump makes them")
    }
    if !options.checks { return }
    // From CRIU's images down through all rounds.
    let report = ChainVerifier.verify(path)
    if report.verdict != .restorable { throw MigrationError.notRestorable(report) }
  }

  private static func prepare(_ options: RestoreOptions) throws -> RestoreDirectory {
    var memory = RestoreDirectory.Memory.rounds
    if try RestoreDirectory.isCompressed(options.directory) {
      memory = try options.criu.readsCompressedImages() ? .rounds : .merged
    }
    return try RestoreDirectory.prepare(
      options.directory, name: "restore-\(getpid())", memory: memory, workers: options.workers)
  }

  /// Waits for processes that have ended under the numbers that CRIU is to give, until their parents
  /// take notice.
  private static func awaitFreeNumbers(_ state: borrowing Directory) throws {
    let limit: UInt64 = 10_000_000_000
    let step: UInt64 = 2_000_000
    let began = MonotonicClock.now
    for pid in RestoreDirectory.processes(in: try state.names()) {
      while MonotonicClock.now - began < limit, isZombie(pid) {
        MonotonicClock.pause(nanoseconds: step)
      }
    }
  }

  private static func isZombie(_ pid: Int32) -> Bool {
    (try? TargetProcess(pid: pid).stat().state) == "Z"
  }

  private static func restore(
    _ options: RestoreOptions, _ directory: borrowing Directory, isHeld: Bool,
    whileHeld: () throws -> Void
  ) throws -> Int32? {
    let session = try Directory.open(options.directory, followSymlink: true)
    try? session.removeFile(pidName)
    try awaitFreeNumbers(directory)
    var arguments =
      [
        "restore", "--images-dir", ".", "--work-dir", ".", "--restore-detached", "--log-file",
        "../\(logName)", "--pidfile", "../\(pidName)",
      ] + options.arguments
    if isHeld { arguments += ["--action-script", "./\(DecisionGate.scriptName)"] }
    let gate = try DecisionGate(in: directory, at: "post-restore")
    let child = try options.criu.start(
      arguments, directory: directory.descriptor.number, output: .discarded)
    var declined: (any Error)?
    if try Readiness.wait(for: [gate.descriptor, child.descriptor]).contains(0) {
      do { try whileHeld() } catch { declined = error }
      try gate.decide(endsProcess: declined == nil)
    }
    let end = try CRIUProgram.wait(child)
    if let declined { throw declined }
    guard end == .exited(0) else {
      throw MigrationError.criu(
        action: "restore", end: end.description, log: session.join(logName),
        lines: CRIUProgram.complaints(in: session, log: logName))
    }
    guard let file = try? session.openFile(pidName) else { return nil }
    let text = String(decoding: try readToEnd(file, path: session.join(pidName)), as: UTF8.self)
    return Int32(text.prefix { $0.isNumber })
  }
}
