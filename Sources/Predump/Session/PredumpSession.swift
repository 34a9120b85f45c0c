internal import Glibc
internal import Images
internal import Kernel
internal import SystemPackage
internal import Tracee

/// One dump from attaching to its last round.
struct PredumpSession: ~Copyable {
  private let options: PredumpOptions
  private let cancellation: Cancellation
  private let onEvent: @Sendable (PredumpEvent) -> Void
  private let hooks: HookRunner

  private var tree: TargetTree
  private let pipeline: ChunkPipeline
  private let crew: ThreadCrew
  private let comparer: PageComparer
  private let objects: ObjectHistories
  private var images: ImagesDirectory

  private let began = MonotonicClock.now
  private var estimate = FreezeEstimate()
  private var pendingHistory: [UInt64] = []
  /// The freeze that a last round would take now, without sending it (ns).
  private var predictedNanoseconds: UInt64 = 0
  /// How often the target may call execve before that is the end.
  private static let mostRestarts = 8
  private var restarts = 0
  private var roundsBeforeRestart = 0
  private var reports: [RoundReport] = []
  private let residentPages: UInt64
  /// Whether somebody had stopped the process before this dump.

  /// Runs a whole dump on the calling thread.
  static func run(
    _ options: PredumpOptions, _ cancellation: Cancellation,
    _ onEvent: @escaping @Sendable (PredumpEvent) -> Void
  ) throws(PredumpError) -> PredumpSummary {
    let (checks, look) = GroundCheck.look(
      pid: options.pid, imagesDirectory: options.imagesDirectory)
    if let failure = checks.failure { throw failure }
    for item in checks.items where item.status == .warning {
      onEvent(.warning("\(item.title): \(item.detail)"))
    }
    try options.gentleness.apply()
    let hooks = try HookRunner(options, cancellation, onEvent)
    do throws(PredumpError) {
      let watch = try TargetWatch(options, look)
      // The receiver first: a dump that has nowhere to go leaves the target alone.
      let link = try DumpLink.connect(options, cancellation)
      var summary = try run(options, link, look, cancellation, onEvent, hooks)
      // Tracking is over.
      watch.finish(&summary, options, cancellation)
      try hooks.tell(.complete)
      return summary
    } catch {
      try? hooks.tell(.failed, message: "\(error)")
      throw error
    }
  }

  private static func run(
    _ options: PredumpOptions, _ link: ImageLink?, _ look: MemoryLook?,
    _ cancellation: Cancellation, _ onEvent: @escaping @Sendable (PredumpEvent) -> Void,
    _ hooks: HookRunner
  ) throws(PredumpError) -> PredumpSummary {
    var session = try PredumpSession(options, link, look, cancellation, onEvent, hooks)
    do throws(PredumpError) {
      return try session.runToEnd()
    } catch {
      session.images.abandon(after: error)
      if case .link = error, cancellation.isCancelled { throw .interrupted }
      throw error
    }
  }

  private init(
    _ options: PredumpOptions, _ link: ImageLink?, _ look: MemoryLook?,
    _ cancellation: Cancellation, _ onEvent: @escaping @Sendable (PredumpEvent) -> Void,
    _ hooks: HookRunner
  ) throws(PredumpError) {
    var tree = try TargetTree(options, look, onEvent)
    let pipeline: ChunkPipeline
    let crew: ThreadCrew
    do throws(KernelError) {
      pipeline = try ChunkPipeline(
        compression: options.compression, encoders: options.encoders,
        yields: options.gentleness.nice == nil, memoryBytes: options.pipelineMemoryBytes)
      // As many as compress: in a freeze those have nothing to do.
      crew = try ThreadCrew(name: "memdump-copy", count: options.encoders) {
        // Only memory and open files are worked on here.
        try? ThisThread.keepCapabilities([])
      }
    } catch { throw .kernel(error) }
    let identity = tree.target.view.identity
    // The images directory first: a dump that has nowhere to go leaves the target alone.
    var images = try ImagesDirectory(
      path: options.imagesDirectory, link: link, target: identity, sync: options.sync)
    let attachment: TargetTree.Attachment
    do throws(PredumpError) { attachment = try tree.attach() } catch {
      images.abandon(after: error)
      throw error
    }
    onEvent(
      .attached(
        AttachReport(
          target: identity, processCount: tree.members.count,
          stoppedNanoseconds: attachment.stoppedNanoseconds,
          residentBytes: attachment.residentBytes, vmaCount: attachment.vmaCount)))
    Privileges.reduce(attachesMore: options.includesDescendants || options.onExec == .restart)
    self.options = options
    self.cancellation = cancellation
    self.onEvent = onEvent
    self.hooks = hooks
    self.tree = tree
    self.pipeline = pipeline
    self.crew = crew
    comparer = PageComparer(crew)
    estimate.copyThreads = options.encoders
    objects = ObjectHistories(faults: options.tuning.faults)
    self.images = images
    residentPages = attachment.residentBytes / pageBytes
  }

  private mutating func runToEnd() throws(PredumpError) -> PredumpSummary {
    while true {
      do throws(PredumpError) {
        return try runUntilExec()
      } catch {
        try restart(after: error)
      }
    }
  }

  /// Begins anew if the target called execve and that is what the user wants.
  ///
  /// - Throws: `error`, if not.
  private mutating func restart(after error: PredumpError) throws(PredumpError) {
    guard options.onExec == .restart, case .targetGone(options.pid, .replaced) = error,
      restarts < Self.mostRestarts
    else { throw error }
    restarts += 1
    roundsBeforeRestart = reports.count
    pendingHistory = []
    do throws(PredumpError) { try tree.restartTarget(round: reports.count + 1) } catch {
      // Once more, before we had it.
      if case .targetGone(options.pid, .replaced) = error { return try restart(after: error) }
      throw error
    }
    onEvent(
      .warning(
        "process \(options.pid) called execve: what it has become is dumped from round "
          + "\(reports.count + 1) on"))
  }

  private mutating func runUntilExec() throws(PredumpError) -> PredumpSummary {
    while true {
      let verdict = try runLiveRound()
      switch verdict {
      case .nextRound:
        Throttle.wait(
          until: MonotonicClock.now + options.pauseBetweenRoundsNanoseconds, cancellation)
        continue
      case .stalled(let reason) where options.policy.onStall == .abort:
        throw .notConverged(reason: reason, rounds: reports.count)
      case .stalled, .converged: break
      }
      if cancellation.isCancelled { throw .interrupted }
      guard options.takesFinalRound else { return try finish(.preDumpOnly, freeze: nil) }
      try hooks.tell(.converged)
      let (freeze, held) = try runFrozenRound(verdict)
      let withinBudget = freeze.ownNanoseconds <= options.policy.targetDowntimeNanoseconds
      let summary = try finish(withinBudget ? .complete : .completeOverBudget, freeze: freeze)
      // Last of all: whatever failed before, the process runs on.
      do throws(TraceError) { try held.release(leaving: options.leave) } catch {
        throw PredumpError(error)
      }
      if options.leave != .running { try hooks.tell(.thawed) }
      return summary
    }
  }

  private mutating func runLiveRound() throws(PredumpError) -> Verdict {
    if cancellation.isCancelled { throw .interrupted }
    try hooks.tell(.preRound, nextPlan(.live))
    let plan = nextPlan(.live)
    try tree.refresh(round: plan.index)
    let round = LiveRound(
      plan: plan, cancellation: cancellation, pagesExpected: pendingHistory.last ?? residentPages,
      scan: options.scan,
      freezeTimeoutNanoseconds: options.freezeTimeoutNanoseconds,
      bytesPerSecondLimit: options.bytesPerSecondLimit, engineFaults: options.tuning.faults,
      onEvent: onEvent)
    let outcome = try round.run(tree.members, pipeline, images: images, objects, comparer)
    let (unchanged, compared) = (outcome.unchangedPages, outcome.compared)
    estimate.observeComparison(bytes: compared.bytes, nanoseconds: compared.nanoseconds)
    let members = outcome.written.members
    let counters = outcome.counters
    let scanStop = outcome.scanStopNanoseconds
    let totals = try outcome.takeWritten().commit(plan)
    estimate.observeSending(
      pages: totals.pagesStored, bytes: totals.payloadBytes,
      nanoseconds: MonotonicClock.now - plan.began)
    try images.add(plan.name, round: plan.index, members)
    plan.faults.reach(.afterRecord)
    try hooks.tell(.postRound, plan)
    if reports.isEmpty == false || counters.bytes > 0 {
      estimate.observeCopy(
        bytes: counters.bytes, reads: counters.reads, nanoseconds: counters.nanoseconds)
    }
    let (pending, threads) = try countPending(members)
    pendingHistory.append(pending.pageCount)
    var freeze = estimate.nanoseconds(
      pages: pending.pageCount, reads: pending.runCount, threads: threads,
      comparedPages: pending.comparedPageCount)
    predictedNanoseconds = freeze
    // A process that is not to run on is held until the receiver has its last round.
    if images.place.link?.hearsAnswers ?? false, options.leave != .running {
      freeze += estimate.sendingNanoseconds(pages: pending.pageCount)
    }
    let now = MonotonicClock.now
    let verdict = options.policy.verdict(
      for: ConvergencePolicy.Sample(
        rounds: reports.count + 1 - roundsBeforeRestart, pendingPages: pendingHistory,
        estimatedFreezeNanoseconds: freeze, elapsedNanoseconds: now - began))
    let wall = now - plan.began
    let report = RoundReport(
      index: plan.index, name: plan.name, kind: .live, totals: totals,
      unchangedPages: unchanged, bytesIn: totals.pagesStored * pageBytes,
      wallNanoseconds: wall, copyNanoseconds: counters.nanoseconds,
      scanStopNanoseconds: scanStop, pendingPages: pending.pageCount,
      dirtyPagesPerSecond: Double(pending.pageCount) / (Double(wall) / 1e9),
      estimatedFreezeNanoseconds: freeze, verdict: verdict)
    reports.append(report)
    onEvent(.roundFinished(report))
    return verdict
  }

  private mutating func runFrozenRound(_ verdict: Verdict) throws(PredumpError)
    -> (FreezeReport, HeldProcess)
  {
    let expected = pendingHistory.last ?? 0
    let predicted = predictedNanoseconds
    onEvent(
      .freezePredicted(
        FreezePrediction(nanoseconds: predicted, pages: expected, verdict: verdict)))
    try hooks.tell(.preRound, nextPlan(.frozen))
    let plan = nextPlan(.frozen)
    let round = FrozenRound(
      plan: plan, leave: options.leave,
      freezeTimeoutNanoseconds: options.freezeTimeoutNanoseconds,
      freezeMemoryBytes: options.freezeMemoryBytes, pagesExpected: expected,
      predictedNanoseconds: predicted, verifies: options.verifiesFinal, hooks: hooks,
      scan: options.scan, engineFaults: options.tuning.faults)
    let link = images.place.link
    link?.limitStall(nanoseconds: options.freezeTimeoutNanoseconds)
    let outcome = try round.run(
      &tree, pipeline, images: images, objects, comparer, crew,
      onThaw: { report in
        onEvent(.thawed(report))
        if options.leave == .running {
          link?.limitStall(nanoseconds: nil)
          try? hooks.tell(.thawed, plan)
        }
      },
      onWarning: { text in onEvent(.warning(text)) })
    let freeze = outcome.report
    let held = outcome.held
    let counters = outcome.counters
    let members = outcome.written.members
    let unchanged = outcome.unchangedPages
    let totals = try outcome.takeWritten().commit(plan)
    try images.add(plan.name, round: plan.index, members)
    tree.announce(round: plan.index)
    try hooks.tell(.postRound, plan)
    let report = RoundReport(
      index: plan.index, name: plan.name, kind: .frozen, totals: totals,
      unchangedPages: unchanged, bytesIn: totals.pagesStored * pageBytes,
      wallNanoseconds: MonotonicClock.now - plan.began, copyNanoseconds: counters.nanoseconds,
      scanStopNanoseconds: 0, pendingPages: 0, dirtyPagesPerSecond: 0,
      estimatedFreezeNanoseconds: 0, verdict: nil)
    reports.append(report)
    onEvent(.roundFinished(report))
    return (freeze, held)
  }

  private mutating func finish(_ outcome: SessionOutcome, freeze: FreezeReport?)
    throws(PredumpError) -> PredumpSummary
  {
    try images.finish(outcome)
    return PredumpSummary(
      outcome: outcome, rounds: reports, freeze: freeze,
      wallNanoseconds: MonotonicClock.now - began,
      peakResidentBytes: (try? ThisThread.status())?.peakResidentBytes ?? 0)
  }

  private func nextPlan(_ kind: RoundKind) -> RoundPlan {
    let index = reports.count + 1
    return RoundPlan(
      index: index, name: ImagesDirectory.roundName(index), parentName: reports.last?.name,
      kind: kind, includesDescendants: options.includesDescendants,
      compression: options.compression, sync: options.sync,
      faults: options.faults)
  }

  /// What a freeze would find, and how long it takes to find out.
  private mutating func countPending(_ members: [RoundMember]) throws(PredumpError)
    -> (pages: PendingPages, threads: Int)
  {
    let began = MonotonicClock.now
    let pending = try tree.pending(members)
    estimate.observeScan(nanoseconds: MonotonicClock.now - began)
    return pending
  }
}
