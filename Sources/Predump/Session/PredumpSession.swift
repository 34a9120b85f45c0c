internal import Images
internal import Kernel
internal import SystemPackage
internal import Tracee

/// One dump from attaching to its last round.
struct PredumpSession: ~Copyable {
  private let options: PredumpOptions
  private let cancellation: Cancellation
  private let onEvent: @Sendable (PredumpEvent) -> Void

  private var tree: TargetTree
  private let pipeline: ChunkPipeline
  private var images: ImagesDirectory

  private let began = MonotonicClock.now
  private var estimate = FreezeEstimate()
  private var pendingHistory: [UInt64] = []
  private var reports: [RoundReport] = []
  private let residentPages: UInt64

  /// Runs a whole dump on the calling thread.
  static func run(
    _ options: PredumpOptions, _ cancellation: Cancellation,
    _ onEvent: @escaping @Sendable (PredumpEvent) -> Void
  ) throws(PredumpError) -> PredumpSummary {
    let checks = GroundCheck.run(pid: options.pid, imagesDirectory: options.imagesDirectory)
    if let failure = checks.failure { throw failure }
    for item in checks.items where item.status == .warning {
      onEvent(.warning("\(item.title): \(item.detail)"))
    }
    var session = try PredumpSession(options, cancellation, onEvent)
    do throws(PredumpError) {
      return try session.runToEnd()
    } catch {
      session.images.abandon(after: error)
      throw error
    }
  }

  private init(
    _ options: PredumpOptions, _ cancellation: Cancellation,
    _ onEvent: @escaping @Sendable (PredumpEvent) -> Void
  ) throws(PredumpError) {
    var tree = try TargetTree(options, onEvent)
    let pipeline: ChunkPipeline
    do throws(KernelError) {
      pipeline = try ChunkPipeline(compression: options.compression, encoders: options.encoders)
    } catch { throw .kernel(error) }
    let identity = tree.target.view.identity
    // The images directory first: a dump that has nowhere to go leaves the target alone.
    var images = try ImagesDirectory(
      path: options.imagesDirectory, target: identity, sync: options.sync)
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
    self.options = options
    self.cancellation = cancellation
    self.onEvent = onEvent
    self.tree = tree
    self.pipeline = pipeline
    self.images = images
    residentPages = attachment.residentBytes / pageBytes
  }

  private mutating func runToEnd() throws(PredumpError) -> PredumpSummary {
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
      let freeze = try runFrozenRound(verdict)
      let withinBudget = freeze.frozenNanoseconds <= options.policy.targetDowntimeNanoseconds
      return try finish(withinBudget ? .complete : .completeOverBudget, freeze: freeze)
    }
  }

  private mutating func runLiveRound() throws(PredumpError) -> Verdict {
    if cancellation.isCancelled { throw .interrupted }
    let plan = nextPlan(.live)
    try tree.refresh(round: plan.index)
    let round = LiveRound(
      plan: plan, cancellation: cancellation, pagesExpected: pendingHistory.last ?? residentPages,
      scan: options.scan,
      freezeTimeoutNanoseconds: options.freezeTimeoutNanoseconds,
      bytesPerSecondLimit: options.bytesPerSecondLimit, onEvent: onEvent)
    let outcome = try round.run(tree.members, pipeline, images: images)
    let members = outcome.written.members
    let counters = outcome.counters
    let scanStop = outcome.scanStopNanoseconds
    let totals = try outcome.takeWritten().commit(plan)
    try images.add(plan.name, round: plan.index, members)
    plan.faults.reach(.afterRecord)
    if reports.isEmpty == false || counters.bytes > 0 {
      estimate.observeCopy(
        bytes: counters.bytes, reads: counters.reads, nanoseconds: counters.nanoseconds)
    }
    let (pending, threads) = try countPending(members)
    pendingHistory.append(pending.pageCount)
    let freeze = estimate.nanoseconds(
      pages: pending.pageCount, reads: pending.runCount, threads: threads)
    let now = MonotonicClock.now
    let verdict = options.policy.verdict(
      for: ConvergencePolicy.Sample(
        rounds: reports.count + 1, pendingPages: pendingHistory,
        estimatedFreezeNanoseconds: freeze, elapsedNanoseconds: now - began))
    let wall = now - plan.began
    let report = RoundReport(
      index: plan.index, name: plan.name, kind: .live, totals: totals, bytesIn: counters.bytes,
      wallNanoseconds: wall, copyNanoseconds: counters.nanoseconds,
      scanStopNanoseconds: scanStop, pendingPages: pending.pageCount,
      dirtyPagesPerSecond: Double(pending.pageCount) / (Double(wall) / 1e9),
      estimatedFreezeNanoseconds: freeze, verdict: verdict)
    reports.append(report)
    onEvent(.roundFinished(report))
    return verdict
  }

  private mutating func runFrozenRound(_ verdict: Verdict) throws(PredumpError) -> FreezeReport {
    let expected = pendingHistory.last ?? 0
    let predicted = reports.last?.estimatedFreezeNanoseconds ?? 0
    onEvent(
      .freezePredicted(
        FreezePrediction(nanoseconds: predicted, pages: expected, verdict: verdict)))
    let plan = nextPlan(.frozen)
    let round = FrozenRound(
      plan: plan, leave: options.leave,
      freezeTimeoutNanoseconds: options.freezeTimeoutNanoseconds,
      freezeMemoryBytes: options.freezeMemoryBytes, pagesExpected: expected,
      predictedNanoseconds: predicted, verifies: options.verifiesFinal, scan: options.scan)
    let outcome = try round.run(
      &tree, pipeline, images: images, onThaw: { report in onEvent(.thawed(report)) },
      onWarning: { text in onEvent(.warning(text)) })
    let freeze = outcome.report
    let counters = outcome.counters
    let members = outcome.written.members
    let totals = try outcome.takeWritten().commit(plan)
    try images.add(plan.name, round: plan.index, members)
    tree.announce(round: plan.index)
    let report = RoundReport(
      index: plan.index, name: plan.name, kind: .frozen, totals: totals, bytesIn: counters.bytes,
      wallNanoseconds: MonotonicClock.now - plan.began, copyNanoseconds: counters.nanoseconds,
      scanStopNanoseconds: 0, pendingPages: 0, dirtyPagesPerSecond: 0,
      estimatedFreezeNanoseconds: 0, verdict: nil)
    reports.append(report)
    onEvent(.roundFinished(report))
    return freeze
  }

  private mutating func finish(_ outcome: SessionOutcome, freeze: FreezeReport?)
    throws(PredumpError) -> PredumpSummary
  {
    try images.mark(outcome)
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
