internal import Glibc
internal import Images
internal import Kernel
internal import SystemPackage
internal import Tracee

/// One dump from attaching to its last round.
struct PredumpSession: ~Copyable {
  private let options: PredumpOptions
  private let cancellation: Cancellation
  private let events: EventOrder
  private let onEvent: @Sendable (PredumpEvent) -> Void
  private let hooks: HookRunner

  private var tree: TargetTree
  private let pipeline: ChunkPipeline
  private let crew: ThreadCrew
  private let scanner: CrewScanner
  private let comparer: PageComparer
  private let objects: ObjectHistories
  private var images: ImagesDirectory
  private let publisher: LatePublisher
  /// The round that is being made durable while the next one is copied.
  private var late: ImagesDirectory.Entry?
  /// The newest round that is written.
  private var parent: ParentRound?

  private let began = MonotonicClock.now
  private var forecast: FreezeForecast
  /// How often the target may call execve before that is the end.
  private static let mostRestarts = 8
  private var restarts = 0
  private var roundsBeforeRestart = 0
  private var reports: [RoundReport] = []
  /// What the last live round found and stored.
  private var lastLive: (members: [RoundMember], plan: RoundPlan)?
  private let residentPages: UInt64
  /// How long processes stood still for scans and for the freeze (ns).
  private var stopNanoseconds: UInt64 = 0

  /// Attaches.
  init(
    _ options: PredumpOptions, _ link: ImageLink?, _ look: MemoryLook?,
    _ cancellation: Cancellation, _ deliver: @escaping @Sendable (PredumpEvent) -> Void,
    _ hooks: HookRunner
  ) throws(PredumpError) {
    let events = EventOrder(deliver)
    let onEvent: @Sendable (PredumpEvent) -> Void = { events.emit($0) }
    var tree = try TargetTree(options, look, onEvent)
    let pipeline: ChunkPipeline
    let publisher: LatePublisher
    let crew: ThreadCrew
    let forecast: FreezeForecast
    do throws(KernelError) {
      forecast = try FreezeForecast(copyThreads: options.encoders)
      pipeline = try ChunkPipeline(
        compression: options.compression, encoders: options.encoders,
        yields: options.gentleness.nice == nil, memoryBytes: options.pipelineMemoryBytes)
      publisher = try LatePublisher()
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
    self.events = events
    self.onEvent = onEvent
    self.publisher = publisher
    self.hooks = hooks
    self.tree = tree
    self.pipeline = pipeline
    self.crew = crew
    scanner = CrewScanner(
      crew, vectorCount: options.tuning.vectorCount, faults: options.tuning.faults)
    comparer = PageComparer(crew)
    self.forecast = forecast
    objects = ObjectHistories(faults: options.tuning.faults)
    self.images = images
    residentPages = attachment.residentBytes / pageBytes
  }

  /// Runs to the last round.
  mutating func run() throws(PredumpError) -> PredumpSummary {
    do throws(PredumpError) {
      return try runToEnd()
    } catch {
      images.abandon(after: error)
      if case .link = error, cancellation.isCancelled { throw .interrupted }
      throw images.explain(error)
    }
  }

  private mutating func runToEnd() throws(PredumpError) -> PredumpSummary {
    while true {
      do throws(PredumpError) {
        return try runUntilExec()
      } catch {
        // Complete rounds are kept.
        try settle()
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
    forecast.rollBack(to: 0)
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
      do throws(PredumpError) {
        if let summary = try runStep() { return summary }
      } catch { try resume(after: error) }
    }
  }

  /// Connects again after the link broke, if that is what the user wants: the rounds that the receiver
  /// does not have are taken again.
  ///
  /// - Throws: `error`, if not, or why nobody can be reached.
  private mutating func resume(after error: PredumpError) throws(PredumpError) {
    guard case .link = error, options.reconnectNanoseconds > 0, let link = images.place.link,
      link.hearsAnswers, !cancellation.isCancelled
    else { throw error }
    onEvent(.warning("\(error); trying to reach the receiver again"))
    let kept = try DumpLink.reconnect(link, options, cancellation)
    onEvent(.warning("the receiver is back, with \(kept) of \(reports.count) complete rounds"))
    images.rollBack(to: kept)
    for member in tree.members { member.rollBack(to: kept) }
    objects.rollBack(to: kept)
    reports.removeSubrange(min(kept, reports.count)...)
    forecast.rollBack(to: kept)
    roundsBeforeRestart = min(roundsBeforeRestart, kept)
    parent = link.parent
  }

  /// A live round and, if that is the last one, the freeze.
  ///
  /// - Returns: nil if it is not over yet.
  private mutating func runStep() throws(PredumpError) -> PredumpSummary? {
    var verdict = try runLiveRound()
    switch verdict {
    case .nextRound:
      let link = images.place.link
      Throttle.wait(
        until: MonotonicClock.now + options.pauseBetweenRoundsNanoseconds, cancellation
      ) { cancellation.wantsFinal || link?.isBroken ?? false }
      guard cancellation.wantsFinal, let lastLive, !(link?.isBroken ?? false) else { return nil }
      // At once, whatever was written during the pause; only what is predicted is new.
      try settle()
      var report = reports[reports.count - 1]
      try judge(&report, lastLive.members, lastLive.plan)
      verdict = .converged(.requested)
    case .stalled(let reason) where options.policy.onStall == .abort:
      throw .notConverged(reason: reason, rounds: reports.count)
    case .stalled, .converged: break
    }
    if cancellation.isCancelled { throw .interrupted }
    guard options.takesFinalRound else { return try finish(.preDumpOnly, freeze: nil) }
    // Nothing is to stand still for what cannot go on.
    try checkCompanion()
    try hooks.tell(.converged)
    let (freeze, held) = try runFrozenRound(verdict)
    let withinBudget = freeze.ownNanoseconds <= options.policy.targetDowntimeNanoseconds
    let outcome: SessionOutcome = withinBudget ? .complete : .completeOverBudget
    // Without the round that was just taken it is not over: the process runs on.
    guard let summary = try finish(outcome, freeze: freeze, held) else { return nil }
    for member in tree.members { member.endTracking() }
    // Last of all: whatever failed before, the process runs on.
    try release(held, leaving: options.leave)
    if options.leave != .running { try hooks.tell(.thawed) }
    return summary
  }

  private func checkCompanion() throws(PredumpError) {
    do throws(ImageError) { try options.companion?.check() } catch { throw PredumpError(error) }
  }

  private mutating func runLiveRound() throws(PredumpError) -> Verdict {
    if cancellation.isCancelled { throw .interrupted }
    try checkCompanion()
    try hooks.tell(.preRound, nextPlan(.live))
    let plan = nextPlan(.live)
    try tree.refresh(round: plan.index)
    let round = LiveRound(
      plan: plan, cancellation: cancellation,
      pagesExpected: forecast.pendingHistory.last ?? residentPages,
      scan: options.scan,
      freezeTimeoutNanoseconds: options.freezeTimeoutNanoseconds,
      bytesPerSecondLimit: options.bytesPerSecondLimit, engineFaults: options.tuning.faults,
      onEvent: onEvent)
    let outcome = try round.run(tree.members, pipeline, images: images, objects, comparer)
    forecast.observe(outcome)
    let members = outcome.written.members
    stopNanoseconds += outcome.scanStopNanoseconds
    var report = RoundReport(
      index: plan.index, name: plan.name, kind: .live, waitingPages: tree.waitingPageCount,
      unchangedPages: outcome.unchangedPages, copyNanoseconds: outcome.counters.nanoseconds,
      scanStopNanoseconds: outcome.scanStopNanoseconds)
    let finished = try outcome.takeWritten().finish(plan)
    // A round is published after its parent.
    try settle()
    report.account(for: finished.totals)
    parent = finished.asParent
    let entry = images.entry(plan.name, round: plan.index, members)
    forecast.addRound()
    lastLive = (members, plan)
    if publishesLate {
      try judge(&report, members, plan)
      if report.verdict == .nextRound {
        publisher.begin(finished, plan, entry)
        late = entry
        reports.append(report)
        events.hold(report, began: plan.began, until: publisher.publishedAt)
        return .nextRound
      }
    }
    // The process is not to stand still for a disk: what it writes meanwhile counts.
    do throws(ImageError) { try finished.publish(plan, entry) } catch { throw PredumpError(error) }
    images.accept(entry)
    try hooks.tell(.postRound, plan)
    try judge(&report, members, plan)
    var broken: PredumpError?
    if report.verdict != .nextRound, let link = images.place.link, !link.isSettled {
      // The process is not to stand still for what is under way: it arrives first. What it writes
      // meanwhile counts.
      do throws(ImageError) { try link.settle() } catch { broken = PredumpError(error) }
      try judge(&report, members, plan)
    }
    reports.append(report)
    onEvent(.roundFinished(report))
    if let broken { throw broken }
    return report.verdict ?? .nextRound
  }

  /// Whether a round may be made durable while the next one is copied. A link carries one at a time,
  /// commands are run in the order of what they are told, and nobody is to wait through a pause.
  private var publishesLate: Bool {
    options.sync && images.place.isLocal && images.place.link == nil
      && options.hooks.onEvent == nil && options.pauseBetweenRoundsNanoseconds == 0
  }

  /// Waits until the round before is published.
  private mutating func settle() throws(PredumpError) {
    guard let entry = late.take() else { return }
    defer { events.settle() }
    do throws(ImageError) { try publisher.finish() } catch { throw PredumpError(error) }
    images.accept(entry)
    if let end = publisher.publishedAt() { reports[reports.count - 1].end(at: end) }
  }

  /// What to do after a live round, with what a freeze would find now.
  private mutating func judge(
    _ report: inout RoundReport, _ members: [RoundMember], _ plan: RoundPlan
  ) throws(PredumpError) {
    let pending = try forecast.look(at: tree, members, scanner, crew)
    report.pendingPages = pending.pageCount
    var freeze = forecast.nanoseconds
    // A process that is not to run on is held until the receiver has its last round.
    if let link = images.place.link, link.hearsAnswers, options.leave != .running {
      freeze += forecast.sendingNanoseconds(link, reports + [report])
    }
    let now = MonotonicClock.now
    report.verdict =
      cancellation.wantsFinal
      ? .converged(.requested)
      : options.policy.verdict(
        for: ConvergencePolicy.Sample(
          rounds: reports.count + 1 - roundsBeforeRestart, pendingPages: forecast.pendingHistory,
          estimatedFreezeNanoseconds: freeze, elapsedNanoseconds: now - began))
    report.estimatedFreezeNanoseconds = freeze
    report.began = plan.began
    report.end(at: now)
    report.dirtyPagesPerSecond =
      Double(pending.pageCount) / (Double(report.wallNanoseconds) / 1e9)
    if report.verdict == .nextRound { tree.leaveHotPages(limit: hotPageLimit) }
  }

  /// Pages that may wait for the freeze: what it has time for in half of what is asked for, and memory.
  /// Without a freeze nothing waits.
  private var hotPageLimit: UInt64 {
    guard options.takesFinalRound else { return 0 }
    return options.tuning.hotPageLimit
      ?? min(
        forecast.pages(in: options.policy.targetDowntimeNanoseconds / 2),
        options.freezeMemoryBytes / pageBytes / 2)
  }

  private mutating func runFrozenRound(_ verdict: Verdict) throws(PredumpError)
    -> (FreezeReport, HeldProcess)
  {
    let expected = forecast.pendingHistory.last ?? 0
    let predicted = forecast.nanoseconds
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
      &tree, pipeline, images: images, objects, comparer, scanner, crew,
      onThaw: { report in
        onEvent(.thawed(report))
        link?.limitStall(nanoseconds: nil)
        if options.leave == .running { try? hooks.tell(.thawed, plan) }
      },
      onWarning: { text in onEvent(.warning(text)) })
    let freeze = outcome.report
    stopNanoseconds += freeze.frozenNanoseconds
    let held = outcome.held
    let counters = outcome.counters
    let members = outcome.written.members
    let unchanged = outcome.unchangedPages
    let finished = try outcome.takeWritten().finish(plan)
    var report = RoundReport(
      index: plan.index, name: plan.name, kind: .frozen, waitingPages: 0,
      unchangedPages: unchanged,
      copyNanoseconds: counters.nanoseconds, scanStopNanoseconds: 0)
    report.account(for: finished.totals)
    let entry = images.entry(plan.name, round: plan.index, members)
    do throws(ImageError) { try finished.publish(plan, entry) } catch { throw PredumpError(error) }
    images.accept(entry)
    tree.announce(round: plan.index)
    try hooks.tell(.postRound, plan)
    report.began = plan.began
    report.end(at: MonotonicClock.now)
    reports.append(report)
    onEvent(.roundFinished(report))
    return (freeze, held)
  }

  /// - Returns: nil if it is not over: rounds were lost, or the process has run since the last one.
  private mutating func finish(
    _ outcome: SessionOutcome, freeze: FreezeReport?, _ held: HeldProcess? = nil
  ) throws(PredumpError) -> PredumpSummary? {
    while true {
      do throws(PredumpError) {
        try images.finish(outcome)
        do throws(ImageError) { try options.companion?.settle() } catch {
          throw PredumpError(error)
        }
        break
      } catch {
        let before = reports.count
        // It does not stand still for a link: another freeze costs less.
        if options.leave != .running { try release(held, leaving: .running) }
        try resume(after: error)
        if reports.count < before || options.leave != .running { return nil }
      }
    }
    return PredumpSummary(
      outcome: outcome, rounds: reports, freeze: freeze,
      wallNanoseconds: MonotonicClock.now - began,
      peakResidentBytes: (try? ThisThread.status())?.peakResidentBytes ?? 0,
      slowdown: Slowdown(
        stoppedNanoseconds: tree.attachNanoseconds + stopNanoseconds,
        firstWrites: tree.firstWriteCount, nanosecondsPerFirstWrite: try? FirstWriteCost.measure()))
  }

  private func release(_ held: HeldProcess?, leaving state: LeaveState) throws(PredumpError) {
    do throws(TraceError) { try held?.release(leaving: state) } catch { throw PredumpError(error) }
  }

  private func nextPlan(_ kind: RoundKind) -> RoundPlan {
    let index = reports.count + 1
    return RoundPlan(
      index: index, name: ImagesDirectory.roundName(index), parent: parent,
      kind: kind, includesDescendants: options.includesDescendants,
      compression: options.compression, sync: options.sync,
      faults: options.faults,
      confirmedRounds: options.reconnectNanoseconds == 0
        ? nil : images.place.link.map { Int($0.roundsAcknowledged) })
  }
}
