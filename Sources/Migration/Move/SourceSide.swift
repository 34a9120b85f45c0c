internal import Glibc
internal import Images
internal import Kernel
internal import Predump

/// The source's side of one migration.
struct SourceSide {
  private let options: MigrateOptions
  private let cancellation: Cancellation
  private let onEvent: @Sendable (MigrateEvent) -> Void
  private let identity = MoveIdentity.random()
  private let hooks: MoveHooks
  private let began = MonotonicClock.now
  private let path: String
  private var downtime = DowntimeSplit()
  private var imageBytes: UInt64 = 0
  private var omission: MemoryOmission

  init(
    _ options: MigrateOptions, _ cancellation: Cancellation,
    _ onEvent: @escaping @Sendable (MigrateEvent) -> Void, _ path: String
  ) {
    self.options = options
    self.cancellation = cancellation
    self.onEvent = onEvent
    self.path = path
    omission = options.omission
    hooks = MoveHooks(
      command: options.predump.hooks.onEvent,
      timeoutNanoseconds: options.predump.hooks.timeoutNanoseconds,
      environment: [
        "MEMDUMP_PID": "\(options.predump.pid)", "MEMDUMP_DESTINATION": options.destination.text,
      ],
      cancellation: cancellation, onWarning: { onEvent(.predump(.warning($0))) })
  }

  /// Whether what is in the directory is still of use.
  func leavesDirectory(_ error: any Error) -> Bool {
    switch error as? MigrationError {
    case .undecided, .criu: true
    default: false
    }
  }

  mutating func run(in directory: borrowing Directory) throws -> MigrateSummary {
    do {
      try Self.checkTarget(options.predump.pid)
      omission = try omission.settled(for: options.predump.pid)
      let link = try SourceLink(options, identity, cancellation)
      do {
        // Before the process is touched.
        let readsCompressed = try link.connect()
        onEvent(.agreed(readsCompressed: readsCompressed))
        let moment = FrozenMoment(of: options.predump)
        let rounds = try sendRounds(moment, link, readsCompressed: readsCompressed)
        defer { moment.dismiss() }
        let pid = try move(directory, link, moment)
        return MigrateSummary(
          pid: pid, rounds: rounds, omission: omission, downtime: downtime, imageBytes: imageBytes,
          wallNanoseconds: MonotonicClock.now - began)
      } catch {
        // The destination's own words come back to nobody.
        try? link.current?.put(.aborted("\(MigrationError(error))"))
        throw error
      }
    } catch {
      try? hooks.tell(.failed, message: "\(MigrationError(error))")
      throw error
    }
  }

  /// A process that somebody has stopped would be let run by our failure, or there.
  static func checkTarget(_ pid: Int32) throws {
    guard let process = try? TargetProcess(pid: pid), let state = try? process.stat().state else {
      throw PredumpError.targetGone(pid: pid, how: .neverFound)
    }
    if state == "T" {
      throw PredumpError.unsuitableTarget(
        pid: pid, reason: "it is stopped; let it go on first (kill -CONT \(pid))")
    }
  }

  /// Sends the rounds; the last leaves the process stopped.
  private mutating func sendRounds(
    _ moment: FrozenMoment, _ link: SourceLink, readsCompressed: Bool
  ) throws -> PredumpSummary {
    var rounds = options.predump
    rounds.leadToMove(to: options.destination, with: link)
    if case .asTheDestinationReads = options.compression, !readsCompressed {
      rounds.compression = .none
    }
    let onEvent = onEvent
    do throws(PredumpError) {
      let summary = try Predump.run(rounds, cancellation: cancellation) { event in
        moment.note(event)
        onEvent(.predump(event))
      }
      let copied = moment.copied
      if let report = copied.report {
        downtime.freezing = report.freezingNanoseconds
        downtime.copying =
          report.frozenNanoseconds - min(report.frozenNanoseconds, report.freezingNanoseconds)
        downtime.sendingRound = MonotonicClock.now - copied.at
      }
      return summary
    } catch {
      // It runs on: nobody is to be guarded any more.
      moment.dismiss()
      if let refusal = link.refusal { throw refusal }
      throw error
    }
  }

  /// Has CRIU dump the rest, and the copy restored and let run.
  ///
  /// - Returns: the process id there.
  private mutating func move(
    _ directory: borrowing Directory, _ own: SourceLink, _ moment: FrozenMoment
  ) throws -> Int32 {
    let processes = HeldProcesses(moment.pids)
    var dump: HeldDump
    let link: MoveLink
    do {
      if let failure = moment.failure { throw failure }
      if let pid = try processes.running() { throw MigrationError.notStopped(pid: pid) }
      link = try own.beginDump()
      let includesDescendants = options.predump.includesDescendants
      dump = try HeldDump(
        of: options.predump.pid, includesDescendants: includesDescendants,
        pids: includesDescendants ? Set(moment.pids) : [options.predump.pid], omission,
        with: options.criu, options.arguments, in: directory)
      omission = dump.omission
    } catch {
      resume(processes)
      throw error
    }
    do {
      try awaitCopy(directory, link, &dump)
      try MoveNote(
        destination: options.destination.text, identity: identity,
        author: HeldProcesses.Name(of: getpid()), holder: HeldProcesses.Name(of: dump.pid),
        processes: processes.names
      ).write(in: directory)
      // The point of no return: from here on our death lets nothing run here.
      try moment.hold()
      try dump.hold()
    } catch {
      // Without `go` nothing runs there: first the process here, then the word to the other side.
      let failure = takeBack(dump, error, directory)
      resume(processes)
      throw failure
    }
    let began = MonotonicClock.now
    onEvent(.committing)
    switch try awaitOutcome(link) {
    case .running(let pid):
      downtime.commit = MonotonicClock.now - began
      // Here, not by CRIU: nothing that CRIU still does or fails to do may let them run on.
      processes.kill()
      try? dump.finish(endsProcesses: true, in: directory)
      processes.awaitEnd()
      try? hooks.tell(.committed)
      return pid ?? options.predump.pid
    case .aborted(let text):
      _ = takeBack(dump, HeldDumpError.criuEnded, directory)
      resume(processes)
      throw MigrationError.refusedThere(text)
    }
  }

  /// Sends CRIU's images and waits until the destination has a copy.
  private mutating func awaitCopy(
    _ directory: borrowing Directory, _ link: MoveLink, _ dump: inout HeldDump
  ) throws {
    let began = MonotonicClock.now
    link.resume()
    imageBytes = try dump.send(over: link, from: directory)
    let dumped = MonotonicClock.now
    downtime.criuDump = dumped - began
    onEvent(.dumped)
    try hooks.tell(.dumped)
    try link.put(.dumped)
    switch try link.take() {
    case .ready(let prepare, let criu):
      let all = MonotonicClock.now - dumped
      downtime.restore = min(all, prepare &+ criu)
      downtime.transfer = all - downtime.restore
    case .aborted(let text): throw MigrationError.refusedThere(text)
    default: throw MigrationError.peer("\(link.subject) answers what was not asked")
    }
    onEvent(.ready)
    if cancellation.isCancelled { throw PredumpError.interrupted }
  }

  /// Lets the copy run, and finds out whether it does. A wish to stop comes too late now.
  private func awaitOutcome(_ link: MoveLink) throws -> MoveOutcome {
    link.ignoreCancellation()
    do {
      try link.put(.go)
      switch try link.take() {
      case .running(let pid):
        try? link.put(.settled)
        return .running(pid: pid)
      case .aborted(let text):
        try? link.put(.settled)
        return .aborted(text)
      default: break
      }
    } catch {}
    // Only the destination knows.
    let answer = OutcomeQuestion(
      destination: options.destination, tls: options.predump.tls, identity: identity,
      isCancelled: { false }
    ).ask(forNanoseconds: options.outcomePatienceNanoseconds)
    if let outcome = answer.outcome { return outcome }
    throw MigrationError.undecided(
      pid: options.predump.pid, destination: options.destination.text, directory: path,
      reason: answer.reason)
  }

  /// Lets CRIU take everything back.
  ///
  /// - Returns: why: what CRIU says, if it was CRIU that failed.
  private func takeBack(
    _ dump: consuming HeldDump, _ error: any Error, _ directory: borrowing Directory
  ) -> any Error {
    do throws(MigrationError) { try dump.finish(endsProcesses: false, in: directory) } catch let its
    {
      if case .criuEnded? = error as? HeldDumpError { return its }
    }
    return error
  }

  private func resume(_ processes: HeldProcesses) {
    processes.goOn()
    onEvent(.resumed)
    try? hooks.tell(.resumed)
  }
}
