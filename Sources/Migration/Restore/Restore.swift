internal import Glibc
internal import Images
internal import Kernel

/// Restores a process from a chain and CRIU's images of the rest.
///
/// Between `init` and `finish` a CRIU has been started and waits for its images: what it takes to
/// start is not taken from the time that the process stands still.
public struct Restore: ~Copyable {
  private static let logName = "criu-restore.log"
  private static let pidName = "criu-restore.pid"

  private let options: RestoreOptions
  private let criu: ChildProcess
  private let gate: ActionGate
  private var filler: MemoryFiller
  /// Whether memdump fills memory.
  private let fills: Bool
  /// Nil if the process does not run before its memory is there.
  private let guardian: ProcessGuardian?
  private var place: RestoreDirectory

  /// Restores; the images stay as they are. Returns when all memory is there.
  ///
  /// - Parameter onRunning: called when the process runs, which may be earlier.
  /// - Throws: `MigrationError`; `.notRestorable` before anything was done.
  public static func run(
    _ options: RestoreOptions, onRunning: (RestoreSummary) -> Void = { _ in }
  ) throws(MigrationError) -> RestoreSummary {
    do {
      var began = MonotonicClock.now
      if options.checks { try check(options.directory) }
      let checked = MonotonicClock.now - began
      began = MonotonicClock.now
      let restore = try Restore(options)
      let started = MonotonicClock.now - began
      var summary = RestoreSummary()
      summary.checkNanoseconds = checked
      summary.prepareNanoseconds = started
      return try restore.finish(summary, whileHeld: { _ in }, whenRunning: onRunning)
    } catch { throw MigrationError(error) }
  }

  /// Checks every byte of the images in `directory`, as `run` does first: CRIU restores wrong memory
  /// from damaged images and says nothing.
  public static func check(_ directory: String) throws(MigrationError) {
    do {
      let session = try Directory.open(directory, followSymlink: true)
      let path = session.join(StateImages.directoryName)
      guard try session.names().contains(StateImages.directoryName) else { throw missing(path) }
      // From CRIU's images down through all rounds.
      let report = ChainVerifier.verify(path)
      if report.verdict != .restorable { throw MigrationError.notRestorable(report) }
    } catch { throw MigrationError(error) }
  }

  private static func missing(_ path: String) -> ImageError {
    ImageError(
      .missingFile, file: path,
      "CRIU's images are missing: the rounds have memory alone; memdump criu-dump makes them")
  }

  /// Starts `criu restore --restore-detached` and has it wait. The dump's directory must exist, the
  /// images need not.
  public init(_ options: RestoreOptions) throws(MigrationError) {
    try self.init(options, isHeld: false)
  }

  /// As `init(_:)`; with `isHeld`, `finish` asks when all is restored and nothing has run.
  init(_ options: RestoreOptions, isHeld: Bool) throws(MigrationError) {
    do {
      let fills =
        switch options.filling {
        case .automatic: options.isLazy || (try? MissingPages.areOffered()) ?? false
        case .memdump: true
        case .criu: false
        }
      if options.isLazy, try !fills || !MissingPages.areOffered() {
        throw MigrationError.peer(
          "a process can run before its memory is there only if memdump fills it, by a userfaultfd "
            + "that tells of forks and unmapping: leave out --lazy")
      }
      // Forked, while we are small.
      let guardian = options.isLazy ? try ProcessGuardian() : nil
      let place = try RestoreDirectory(options.directory, name: "restore-\(getpid())")
      // Unused, and harmless, where CRIU fills memory.
      let filler = try MemoryFiller(options.directory, in: place.directory)
      let gate = try ActionGate([.postRestore], in: place.directory)
      let session = try Directory.open(options.directory, followSymlink: true)
      try? session.removeFile(Self.pidName)
      let criu = try options.criu.start(
        Self.arguments(options, fills: fills, isGated: fills || isHeld),
        directory: place.directory.descriptor.number,
        output: .discarded)
      self.criu = criu
      self.place = place
      self.filler = filler
      self.gate = gate
      self.fills = fills
      self.guardian = guardian
      self.options = options
    } catch { throw MigrationError(error) }
  }

  /// Restores, once the images are complete. Whether they are damaged is not looked at: `check` does
  /// that, and a receiver of rounds did it when they came.
  ///
  /// - Throws: `MigrationError`; no restored process is left then.
  public consuming func finish() throws(MigrationError) -> RestoreSummary {
    try finish(RestoreSummary(), whileHeld: { _ in }, whenRunning: { _ in })
  }

  /// As `finish()`, with a say in it.
  ///
  /// - Parameters:
  ///   - begun: what was done before.
  ///   - whileHeld: called when it is complete and nothing of it has run, with what that took so far. If
  ///     it throws, or if this process dies meanwhile, CRIU kills what it restored.
  ///   - whenRunning: called when it runs; its memory may still be on the way.
  consuming func finish(
    _ begun: RestoreSummary, whileHeld: (RestoreSummary) throws -> Void,
    whenRunning: (RestoreSummary) -> Void
  ) throws(MigrationError) -> RestoreSummary {
    do {
      let options = options
      var summary = begun
      let began = MonotonicClock.now
      let session = try Directory.open(options.directory, followSymlink: true)
      do {
        let state = session.join(StateImages.directoryName)
        guard try session.names().contains(StateImages.directoryName) else {
          throw Self.missing(state)
        }
        try Self.awaitFreeNumbers(session)
        try place.fill(try Self.memory(options, fills: fills), workers: options.workers)
      } catch {
        // CRIU has no images and goes when it is told that there will be none.
        place.abandon()
        _ = try? CRIUProgram.wait(criu)
        throw error
      }
      summary.unpackedPages = place.mergedPages
      let ready = MonotonicClock.now
      summary.prepareNanoseconds += ready - began
      var failure: (any Error)?
      var fill: MemoryFill?
      do {
        if fills {
          let pages = place.lazyPages
          try filler.serve(pages, until: gate.descriptor, or: criu.descriptor)
          if try gate.isAsked(or: criu.descriptor) {
            fill = try filler.fill(guardian, workers: options.workers)
            if guardian == nil { try fill.take()?.finish().note(in: &summary) }
          }
        }
        // Without a gate, CRIU asks nothing and ends.
        if try gate.isAsked(or: criu.descriptor) {
          _ = try gate.question()
          summary.criuNanoseconds = MonotonicClock.now - ready
          try whileHeld(summary)
          try gate.answer(true)
        }
      } catch {
        failure = error
        try? gate.answer(false)
        filler.letGo()
      }
      let end = try CRIUProgram.wait(criu)
      if failure == nil, end == .exited(0) {
        summary.criuNanoseconds = MonotonicClock.now - ready
        summary.pid = try Self.restoredPid(session)
        whenRunning(summary)
      }
      if let fill {
        do { try fill.finish().note(in: &summary) } catch {
          let reason = failure ?? error
          throw MigrationError.incomplete(directory: options.directory, reason: "\(reason)")
        }
      }
      if let failure { throw failure }
      guard end == .exited(0) else {
        throw MigrationError.criu(
          action: "restore", end: end.description, log: session.join(Self.logName),
          lines: CRIUProgram.complaints(in: session, log: Self.logName))
      }
      return summary
    } catch { throw MigrationError(error) }
  }

  /// Ends CRIU, which has restored nothing.
  public consuming func cancel() {
    place.abandon()
    _ = try? CRIUProgram.wait(criu)
  }

  private static func arguments(_ options: RestoreOptions, fills: Bool, isGated: Bool) -> [String] {
    [
      "restore", "--images-dir", ".", "--work-dir", ".", "--restore-detached", "--log-file",
      "../\(logName)", "--pidfile", "../\(pidName)",
    ] + (fills ? ["--lazy-pages"] : []) + (isGated ? ActionGate.arguments : [])
      + options.arguments
  }

  private static func memory(_ options: RestoreOptions, fills: Bool) throws
    -> RestoreDirectory.Memory
  {
    if fills { return .later }
    guard try RestoreDirectory.isCompressed(options.directory) else { return .rounds }
    return try options.criu.readsCompressedImages() ? .rounds : .merged
  }

  /// Waits for processes that have ended under the numbers that CRIU is to give, until their parents
  /// take notice.
  private static func awaitFreeNumbers(_ session: borrowing Directory) throws {
    let limit: UInt64 = 10_000_000_000
    let step: UInt64 = 2_000_000
    let began = MonotonicClock.now
    let names = try session.directory(StateImages.directoryName).names()
    for pid in RestoreDirectory.processes(in: names) {
      while MonotonicClock.now - began < limit, isZombie(pid) {
        MonotonicClock.pause(nanoseconds: step)
      }
    }
  }

  private static func isZombie(_ pid: Int32) -> Bool {
    (try? TargetProcess(pid: pid).stat().state) == "Z"
  }

  private static func restoredPid(_ session: borrowing Directory) throws -> Int32? {
    guard let file = try? session.openFile(pidName) else { return nil }
    let text = String(decoding: try readToEnd(file, path: session.join(pidName)), as: UTF8.self)
    return Int32(text.prefix { $0.isNumber })
  }
}
