internal import Images
internal import Kernel
internal import Synchronization

/// Fills the missing pages of restored processes: those that a thread waits for at once, those that
/// were written late in the rounds first.
///
/// They may run meanwhile, if there is a guardian. Then they cannot do without us: with the last
/// userfaultfd, what is missing would become zero, and nobody would notice. So they are killed if this
/// fails, and by the guardian, which holds the userfaultfds too, if this process dies.
final class MemoryFill: Sendable {
  /// What it came to.
  struct Outcome: Sendable {
    /// Pages that were missing.
    var pages: UInt64 = 0
    /// Pages that a thread waited for.
    var faults: UInt64 = 0
    /// From the begin to the last page (ns).
    var nanoseconds: UInt64 = 0
  }

  private struct State {
    var spaces: [MissingMemory] = []
    var queue: [(space: MissingMemory, portion: Int)] = []
    var next = 0
    var active = 0
    var failure: (any Error)?
    var outcome = Outcome()
    /// Children that were announced and not seen yet.
    var unseenChildren = 0
    var guarded: Set<Int32> = []
  }

  private let directory: String
  private let pids: [Int32]
  private let roots: HeldProcesses?
  private let guardian: ProcessGuardian?
  private let state: Mutex<State>
  private let stop: OwnedPipe
  private let ends = BlockingQueue<Void>()
  private let workers: Int
  private let began = MonotonicClock.now

  /// Takes on processes that lack pages.
  ///
  /// - Parameter guardian: who kills them if we die; nil if they will not run before `finish`.
  /// - Throws: if what has a member's number is not what was restored.
  init(
    _ directory: String, _ spaces: [MissingMemory], _ guardian: ProcessGuardian?, workers: Int
  ) throws {
    self.directory = directory
    self.guardian = guardian
    self.workers = max(1, workers)
    pids = spaces.map(\.pid)
    stop = try OwnedPipe()
    var state = State()
    state.spaces = spaces
    for space in spaces {
      state.outcome.pages += space.pageCount
      state.queue += space.undone.map { (space, $0) }
    }
    if let guardian {
      for space in spaces { try Self.guardProcess(space, guardian) }
      state.guarded = try Self.guardDescendants(of: pids, besides: Set(pids), guardian).union(pids)
    }
    self.state = Mutex(state)
    roots = guardian == nil ? nil : HeldProcesses(pids)
    try guardian?.setKills(true)
  }

  private static func guardProcess(_ space: MissingMemory, _ guardian: ProcessGuardian) throws {
    let process = try TargetProcess(pid: space.pid)
    if let address = space.firstAddress {
      // CRIU names processes by their numbers in their own namespace: ours may be somebody else's.
      let flags = VMAFlags.parse(smaps: try process.read("smaps"))
      guard
        flags.contains(where: { $0.key.contains(address) && $0.value.contains(.userfaultMissing) })
      else {
        throw MigrationError.peer(
          "process \(space.pid) is not the restored one: what is restored into a pid namespace of "
            + "its own cannot run before its memory is there (leave out --lazy)")
      }
    }
    try guardian.take(process)
    try space.keep(with: guardian)
  }

  /// Begins.
  func start() throws(KernelError) {
    try run("memdump-faults") { [self] in
      do { try listen() } catch { fail(error) }
      letGo()
    }
    for _ in 0..<workers { try run("memdump-fill") { [self] in try work() } }
  }

  private func run(_ name: String, _ body: @escaping @Sendable () throws -> Void)
    throws(KernelError)
  {
    _ = try OSThread(name: name) { [self] in
      do { try body() } catch { fail(error) }
      ends.put(())
    }
  }

  /// Waits until everything is there.
  ///
  /// - Throws: why it is not; processes that were to run meanwhile are killed then.
  func finish() throws -> Outcome {
    for _ in 0..<workers + 1 { _ = ends.take() }
    let (failure, outcome) = state.withLock { ($0.failure, $0.outcome) }
    if let failure { throw failure }
    return outcome
  }

  // MARK: Filling

  private func work() throws {
    var sources = PageSources(directory)
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: MissingMemory.batchBytes, alignment: Int(pageBytes))
    // Freed here; lent out for the time of a call.
    defer { buffer.deallocate() }
    while let (space, portion) = next() {
      try space.fill(portion, &sources, buffer)
      state.withLock { $0.active -= 1 }
    }
  }

  /// What to do next; nil if there is nothing.
  private func next() -> (MissingMemory, Int)? {
    let (job, isOver) = state.withLock { state -> ((MissingMemory, Int)?, Bool) in
      if state.failure != nil { return (nil, false) }
      guard state.next < state.queue.count else {
        // A fork may give more to do to those who are still at it.
        if state.active == 0 { state.outcome.nanoseconds = MonotonicClock.now - began }
        return (nil, state.active == 0)
      }
      let job = state.queue[state.next]
      state.next += 1
      state.active += 1
      return (job, false)
    }
    if isOver { try? stop.say("over") }
    return job
  }

  private func fail(_ error: any Error) {
    let isFirst = state.withLock { state in
      defer { state.failure = state.failure ?? error }
      return state.failure == nil
    }
    guard isFirst else { return }
    // Before any userfaultfd is closed.
    if let roots {
      let children = pids.flatMap { (try? ProcessTree.descendants(of: $0).map(\.pid)) ?? [] }
      roots.kill()
      HeldProcesses(children).kill()
    }
    try? stop.say("failed")
  }

  // MARK: Listening

  private func listen() throws {
    var sources = PageSources(directory)
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: MissingMemory.faultBytes, alignment: Int(pageBytes))
    // Freed here; lent out for the time of a call.
    defer { buffer.deallocate() }
    while true {
      var isWaitedFor = false
      for space in state.withLock({ $0.spaces }) {
        let news = try space.attend(&sources, buffer)
        isWaitedFor = isWaitedFor || news.isWaitedFor
        state.withLock { $0.outcome.faults += news.faults }
        for child in news.children { try add(child) }
      }
      try guardChildren()
      // Nobody tells when a change is over.
      let ready = try Readiness.wait(
        for: [stop.output.number] + state.withLock { $0.spaces.map(\.descriptor) },
        milliseconds: isWaitedFor ? 1 : -1)
      if ready.contains(0) { return }
    }
  }

  private func add(_ child: MissingMemory) throws {
    if let guardian { try child.keep(with: guardian) }
    state.withLock { state in
      state.spaces.append(child)
      state.queue += child.undone.map { (child, $0) }
      state.unseenChildren += 1
    }
  }

  /// A child can be seen only after its fork was let go on.
  private func guardChildren() throws {
    let (unseen, known) = state.withLock { ($0.unseenChildren, $0.guarded) }
    guard let guardian, unseen > 0 else { return }
    let found = try Self.guardDescendants(of: pids, besides: known, guardian)
    state.withLock { state in
      state.guarded.formUnion(found)
      state.unseenChildren = max(0, unseen - found.count)
    }
  }

  private static func guardDescendants(
    of pids: [Int32], besides known: Set<Int32>, _ guardian: ProcessGuardian
  ) throws -> Set<Int32> {
    var found: Set<Int32> = []
    for root in pids {
      for entry in (try? ProcessTree.descendants(of: root)) ?? []
      where !known.contains(entry.pid) && !found.contains(entry.pid) {
        guard let process = try? TargetProcess(pid: entry.pid) else { continue }
        try guardian.take(process)
        found.insert(entry.pid)
      }
    }
    return found
  }

  /// With the userfaultfds goes the last of the processes' ties to us.
  private func letGo() {
    state.withLock { state in
      state.spaces = []
      state.queue = []
      state.next = 0
    }
    try? guardian?.setKills(false)
  }
}

extension MemoryFill.Outcome {
  /// Writes it into a summary.
  func note(in summary: inout RestoreSummary) {
    summary.filledPages = pages
    summary.waitedPages = faults
    summary.fillNanoseconds = nanoseconds
  }
}
