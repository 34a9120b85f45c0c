internal import Images
internal import Kernel
internal import Tracee

/// The processes of a dump: the target alone, or with its descendants, as they come and go.
struct TargetTree {
  /// The target comes first, parents before their children.
  private(set) var members: [TreeMember]
  private let numbers = SharedObjectNumbers()
  private let options: PredumpOptions
  private let onEvent: @Sendable (PredumpEvent) -> Void
  /// Descendants that cannot be tracked, or are left out, and were told of.
  private var toldOf: Set<Identity> = []
  /// Descendants that came or went while nobody could be told.
  private var untold: [MemberReport] = []

  private struct Identity: Hashable {
    var pid: Int32
    var startTicks: UInt64
  }

  /// How long threads stood still for attaching, of all members that there ever were (ns).
  private(set) var attachNanoseconds: UInt64 = 0
  /// What `firstWriteCount` was of members that are none any more.
  private var earlierFirstWrites: UInt64 = 0

  /// Pages that were found written of those that a round had protected, of all members.
  var firstWriteCount: UInt64 {
    members.reduce(earlierFirstWrites) { $0 + $1.tracker.firstWriteCount }
  }

  /// What attaching found and cost, in sums over all members.
  struct Attachment {
    var stoppedNanoseconds: UInt64 = 0
    var residentBytes: UInt64 = 0
    var vmaCount = 0
  }

  /// Takes hold of the target, without touching it.
  ///
  /// - Parameter look: what the checks learnt of the target's memory.
  init(
    _ options: PredumpOptions, _ look: MemoryLook?,
    _ onEvent: @escaping @Sendable (PredumpEvent) -> Void
  ) throws(PredumpError) {
    let process: TargetProcess
    do throws(KernelError) { process = try TargetProcess(pid: options.pid) } catch {
      throw .targetGone(pid: options.pid, how: .neverFound)
    }
    let target = try TreeMember(
      process, parent: nil, since: 1, numbers: numbers, look: look, tuning: options.tuning)
    self.options = options
    self.onEvent = onEvent
    members = [target]
  }

  /// The process that the dump is of.
  var target: TreeMember { members[0] }

  /// Starts tracking all members. Every descendant is looked at before anything is touched.
  ///
  /// - Throws: also if a descendant cannot be dumped; nothing was harmed then.
  mutating func attach() throws(PredumpError) -> Attachment {
    for entry in try descendants() { try NewMember.check(entry) }
    var attachment = Attachment()
    attachNanoseconds += try target.attach(options.faults)
    try refresh(round: 1)
    attachment.stoppedNanoseconds = attachNanoseconds
    for member in members {
      do throws(KernelError) {
        attachment.residentBytes += try member.view.process.status().residentBytes
        attachment.vmaCount += try member.view.process.maps().count
      } catch {
        if member === target { throw member.view.explain(error) }
      }
    }
    return attachment
  }

  /// Takes hold of what the target has become by an execve, and tracks that.
  mutating func restartTarget(round: Int) throws(PredumpError) {
    let process: TargetProcess
    do throws(KernelError) { process = try TargetProcess(pid: target.pid) } catch {
      throw .targetGone(pid: options.pid, how: .exited)
    }
    let outcome = TargetChecks(pid: target.pid, privileges: PrivilegeChecks()).run()
    if let failure = outcome.findings.compactMap(\.failure).first { throw failure }
    let fresh = try TreeMember(
      process, parent: nil, since: round, numbers: numbers, tuning: options.tuning)
    guard fresh.isSameProcess(as: target) else {
      throw .targetGone(pid: options.pid, how: .exited)
    }
    attachNanoseconds += try fresh.attach(options.faults)
    replaceMembers(by: [fresh] + members.dropFirst(), round: round)
    announce(round: round)
  }

  /// Looks who came and who went, and tracks those who came.
  mutating func refresh(round: Int) throws(PredumpError) {
    guard options.includesDescendants else { return }
    var present = [target]
    for entry in try descendants() {
      if let member = member(entry.pid), !member.isGone {
        present.append(member)
        continue
      }
      do throws(PredumpError) {
        guard let member = try take(entry, round: round) else { continue }
        present.append(member)
      } catch {
        // In the first round nothing was done yet that would be lost.
        if round == 1 { throw error }
        tell(entry, "cannot be tracked (\(error)): it is taken whole in the freeze")
      }
    }
    replaceMembers(by: present, round: round)
    for report in untold { onEvent(.memberChanged(report)) }
    untold = []
  }

  /// Brings the members up to date with what stands still. Whoever is new is not tracked: all of its
  /// pages are stored.
  mutating func settle(_ frozen: [FrozenProcess.Descendant], round: Int) throws(PredumpError) {
    guard options.includesDescendants else { return }
    var present = [target]
    for entry in frozen {
      if let member = member(entry.pid), !member.isGone {
        present.append(member)
        continue
      }
      do throws(PredumpError) {
        let process: TargetProcess
        do throws(KernelError) { process = try TargetProcess(pid: entry.pid) } catch {
          throw .targetGone(pid: entry.pid, how: .exited)
        }
        present.append(
          try TreeMember(
            process, parent: entry.parent, since: round, numbers: numbers, tuning: options.tuning))
      } catch {
        guard case .targetGone = error else { throw error }
        // Killed while it stood still, or its memory is out of reach: it must not be left out unseen.
        let thread = (try? TargetProcess(pid: entry.pid).liveThread()) ?? nil
        if thread != nil { throw NewMember.leaderless(entry.pid) }
      }
    }
    replaceMembers(by: present, round: round)
  }

  /// Tells what `settle` found, which was no time to tell anything.
  mutating func announce(round: Int) {
    for report in untold { onEvent(.memberChanged(report)) }
    untold = []
  }

  /// What a freeze would find, and how many threads it would stop.
  ///
  /// - Parameter described: what the last round says of the members.
  func pending(_ described: [RoundMember], _ crew: CrewScanner) throws(PredumpError)
    -> (pages: PendingPages, threads: Int)
  {
    var sum = PendingPages()
    var threads = 0
    for member in members {
      let last = described.first { $0.target.pid == member.pid && $0.since == member.since }
      guard let last, !last.isGone else { continue }
      do throws(PredumpError) {
        let pending = try member.pending(last.addressSpace.vmas, crew)
        sum.add(pending)
        threads += try member.threadCount()
      } catch {
        guard member !== target, case .targetGone = error else { throw error }
      }
    }
    // A descendant that no round has yet would be taken whole.
    for entry in try descendants() where member(entry.pid) == nil {
      guard let status = try? TargetProcess(pid: entry.pid).status() else { continue }
      sum.pageCount += status.residentBytes / pageBytes
      sum.runCount += 1
      threads += 1
    }
    return (sum, threads)
  }

  /// Decides which pages, so many at most, the next live round leaves to the freeze.
  func leaveHotPages(limit: UInt64) {
    var left = limit
    for member in members { member.leaveHotPages(&left) }
  }

  /// Pages that wait for the freeze.
  var waitingPageCount: UInt64 { members.reduce(0) { $0 + $1.tracker.hot.waiting.pageCount } }

  private func descendants() throws(PredumpError) -> [ProcessTree.Entry] {
    guard options.includesDescendants else { return [] }
    do throws(KernelError) { return try ProcessTree.descendants(of: target.pid) } catch {
      throw target.view.explain(error)
    }
  }

  private func member(_ pid: Int32) -> TreeMember? { members.dropFirst().first { $0.pid == pid } }

  /// A new member, tracked; nil if it is none, or not yet.
  private mutating func take(_ entry: ProcessTree.Entry, round: Int) throws(PredumpError)
    -> TreeMember?
  {
    switch try NewMember.judge(entry) {
    case .left(let why):
      tell(entry, why)
      return nil
    case .later: return nil
    case .fit: break
    }
    guard let process = try? TargetProcess(pid: entry.pid) else { return nil }
    do throws(PredumpError) {
      let member = try TreeMember(
        process, parent: entry.parent, since: round, numbers: numbers, tuning: options.tuning)
      do throws(PredumpError) { attachNanoseconds += try member.attach(options.faults) } catch {
        // What failed may be that it ended, or became another program: the next round looks again.
        if member.isGone { return nil }
        throw error
      }
      return member
    } catch {
      if case .targetGone = error { return nil }
      throw error
    }
  }

  private mutating func replaceMembers(by present: [TreeMember], round: Int) {
    for member in members where !present.contains(where: { $0 === member }) {
      earlierFirstWrites += member.tracker.firstWriteCount
      if !present.contains(where: { $0.isSameProcess(as: member) }) {
        untold.append(member.report(.left, round))
      }
    }
    for member in present where !members.contains(where: { $0 === member }) {
      let isOld = members.contains { $0.isSameProcess(as: member) }
      untold.append(member.report(isOld ? .replaced : .came, round))
    }
    members = present
  }

  /// Warns of a descendant, once.
  private mutating func tell(_ entry: ProcessTree.Entry, _ what: String) {
    guard let process = try? TargetProcess(pid: entry.pid) else { return }
    let identity = Identity(pid: entry.pid, startTicks: process.startTicks)
    guard toldOf.insert(identity).inserted else { return }
    let name = (try? process.status().name) ?? "?"
    onEvent(.warning("process \(entry.pid) (\(name)), a descendant, \(what)"))
  }
}

extension TreeMember {
  fileprivate func isSameProcess(as other: TreeMember) -> Bool {
    pid == other.pid && view.process.startTicks == other.view.process.startTicks
  }

  fileprivate func report(_ change: MemberReport.Change, _ round: Int) -> MemberReport {
    MemberReport(target: view.identity, parent: parent, round: round, change: change)
  }
}
