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

  private var view: TargetView
  private var tracker: DirtyTracker
  private let pipeline: ChunkPipeline
  private var images: ImagesDirectory

  private let began = MonotonicClock.now
  private var populated = PopulatedSet()
  private var estimate = FreezeEstimate()
  private var pendingHistory: [UInt64] = []
  private var reports: [RoundReport] = []
  private var knownSigns = PinnedWriters()
  private let residentPages: UInt64
  /// Whether somebody had stopped the process before this dump.
  private let wasStopped: Bool

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
    // The receiver first: a dump that has nowhere to go leaves the target alone.
    let link = try DumpLink.connect(options, cancellation)
    var session = try PredumpSession(options, link, cancellation, onEvent)
    do throws(PredumpError) {
      return try session.runToEnd()
    } catch {
      session.letRun()
      session.images.abandon(after: error)
      if case .link = error, cancellation.isCancelled { throw .interrupted }
      throw error
    }
  }

  private init(
    _ options: PredumpOptions, _ link: ImageLink?, _ cancellation: Cancellation,
    _ onEvent: @escaping @Sendable (PredumpEvent) -> Void
  ) throws(PredumpError) {
    let process: TargetProcess
    do throws(KernelError) { process = try TargetProcess(pid: options.pid) } catch {
      throw .targetGone(pid: options.pid, how: .neverFound)
    }
    let view = try TargetView(process, faults: options.tuning.faults)
    let pipeline: ChunkPipeline
    let resident: UInt64
    let vmaCount: Int
    do throws(KernelError) {
      pipeline = try ChunkPipeline(compression: options.compression, encoders: options.encoders)
      resident = try view.process.status().residentBytes
      vmaCount = try view.process.maps().count
    } catch { throw view.explain(error) }
    // The images directory first: a dump that has nowhere to go leaves the target alone.
    var images = try ImagesDirectory(
      path: options.imagesDirectory, link: link, target: view.identity, sync: options.sync)
    let attached: Attached
    do throws(PredumpError) {
      attached = try Self.attach(to: view, options.tuning, options.faults)
    } catch {
      images.abandon(after: error)
      throw error
    }
    onEvent(
      .attached(
        AttachReport(
          target: view.identity, stoppedNanoseconds: attached.stoppedNanoseconds,
          residentBytes: resident, vmaCount: vmaCount)))
    self.options = options
    self.cancellation = cancellation
    self.onEvent = onEvent
    self.view = view
    tracker = attached.take()
    self.pipeline = pipeline
    self.images = images
    residentPages = resident / pageBytes
    wasStopped = (try? self.view.process.stat().state) == "T"
  }

  /// Lets a process run on that was to be left stopped, when the dump then failed after all: a full
  /// disk or a broken link must not keep it from its work.
  private func letRun() {
    guard options.leave == .stopped, !wasStopped else { return }
    if (try? view.process.stat().state) == "T" { try? view.process.send(signal: SIGCONT) }
  }

  private struct Attached: ~Copyable {
    let tracker: DirtyTracker
    let stoppedNanoseconds: UInt64
    consuming func take() -> DirtyTracker { tracker }
  }

  private static func attach(
    to view: borrowing TargetView, _ tuning: EngineTuning, _ faults: FaultPlan
  )
    throws(PredumpError) -> Attached
  {
    let outcome: UserfaultfdInjection.Outcome
    do throws(TraceError) {
      outcome = try UserfaultfdInjection.inject(into: view.process, faults: faults)
    } catch { throw PredumpError(error) }
    let stopped = outcome.stoppedNanoseconds
    do throws(KernelError) {
      let userfaultfd = try Userfaultfd(owning: outcome.take(), of: "pid \(view.process.pid)")
      return Attached(
        tracker: DirtyTracker(
          userfaultfd: userfaultfd, pagemap: try view.process.open("pagemap"), tuning: tuning),
        stoppedNanoseconds: stopped)
    } catch { throw view.explain(error) }
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
    let round = LiveRound(
      plan: plan, cancellation: cancellation, pagesExpected: pendingHistory.last ?? residentPages,
      scansStopped: try needsStoppedScan(),
      freezeTimeoutNanoseconds: options.freezeTimeoutNanoseconds,
      bytesPerSecondLimit: options.bytesPerSecondLimit, onEvent: onEvent)
    let outcome = try round.run(
      &view, &tracker, pipeline, images: images, previous: populated)
    populated = outcome.populated
    let vmas = outcome.written.addressSpace.vmas
    let counters = outcome.counters
    let scanStop = outcome.scanStopNanoseconds
    let totals = try outcome.takeWritten().commit(plan, target: view.identity)
    try images.add(plan.name)
    plan.faults.reach(.afterRecord)
    if reports.isEmpty == false || counters.bytes > 0 {
      estimate.observeCopy(
        bytes: counters.bytes, reads: counters.reads, nanoseconds: counters.nanoseconds)
    }
    let pending = try countPending(vmas)
    pendingHistory.append(pending.pageCount)
    let freeze = estimate.nanoseconds(
      pages: pending.pageCount, reads: pending.runCount, threads: try threadCount())
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
    _ = try needsStoppedScan()
    let round = FrozenRound(
      plan: plan, leave: options.leave,
      freezeTimeoutNanoseconds: options.freezeTimeoutNanoseconds,
      freezeMemoryBytes: options.freezeMemoryBytes, pagesExpected: expected,
      predictedNanoseconds: predicted, verifies: options.verifiesFinal)
    let link = images.place.link
    link?.limitStall(nanoseconds: options.freezeTimeoutNanoseconds)
    let outcome = try round.run(
      &view, tracker, pipeline, images: images, previous: populated,
      onThaw: { report in
        link?.limitStall(nanoseconds: nil)
        onEvent(.thawed(report))
      })
    let freeze = outcome.report
    let counters = outcome.counters
    let totals = try outcome.takeWritten().commit(plan, target: view.identity)
    try images.add(plan.name)
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
      kind: kind, compression: options.compression, sync: options.sync,
      faults: options.faults)
  }

  /// Looks for writers that a live scan can miss, and says so when there are some.
  private mutating func needsStoppedScan() throws(PredumpError) -> Bool {
    if options.scan == .live { return false }
    let signs: PinnedWriters
    do throws(KernelError) {
      signs = try PinnedWriters.signs(of: view.process, maps: try view.process.maps())
    } catch { throw view.explain(error) }
    tracker.fixedBuffers = signs.fixedBuffers
    if signs != knownSigns, signs.needsStoppedScan { onEvent(.warning(signs.warning)) }
    knownSigns = signs
    return options.scan == .stopped || signs.needsStoppedScan
  }

  /// What a freeze would find: the tracked pages that were written, and what is taken in every
  /// round.
  private mutating func countPending(_ vmas: [VMARecord]) throws(PredumpError) -> PendingPages {
    let began = MonotonicClock.now
    var pending: PendingPages
    do throws(KernelError) { pending = try tracker.pending(vmas) } catch {
      throw view.explain(error)
    }
    estimate.observeScan(nanoseconds: MonotonicClock.now - began)
    for vma in vmas where vma.treatment != .tracked && vma.pagesStored > 0 {
      pending.pageCount += vma.pagesStored
      pending.runCount += 1
    }
    return pending
  }

  private func threadCount() throws(PredumpError) -> Int {
    do throws(KernelError) { return try view.process.threadIDs().count } catch {
      throw view.explain(error)
    }
  }
}
