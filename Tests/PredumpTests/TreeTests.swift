import Foundation
import Images
import Kernel
import Synchronization
import TestSupport
import Testing
import Tracee

@testable import Predump

/// Processes and their descendants, dumped as one set.
@Suite(.serialized) struct TreeTests {
  /// What a dump said on its way.
  private final class Log: Sendable {
    let members = Mutex<[MemberReport]>([])
    let warnings = Mutex<[String]>([])

    func take(_ event: PredumpEvent) {
      switch event {
      case .memberChanged(let report): members.withLock { $0.append(report) }
      case .warning(let text): warnings.withLock { $0.append(text) }
      default: break
      }
    }
  }

  private func options(_ pid: Int32, _ images: String) -> PredumpOptions {
    var options = PredumpOptions(pid: pid, imagesDirectory: images)
    options.includesDescendants = true
    // Never short enough: the policy goes on to the last round.
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.thresholdPages = 0
    options.policy.minShrinkPercent = 0
    options.policy.maxRounds = 4
    options.freezeTimeoutNanoseconds = 20_000_000_000
    options.leave = .stopped
    options.sync = false
    return options
  }

  /// The images are sound, and hold what every process of the stopped tree holds, and no other.
  @discardableResult private func expectEqual(
    _ images: String, _ pid: Int32, sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> MemoryComparison {
    let report = ChainVerifier.verify(images)
    #expect(report.verdict == .restorable, "\(report.findings)", sourceLocation: sourceLocation)
    let live = try LiveComparison.run(directory: images, pid: pid)
    #expect(live.isEqual, "\(live)", sourceLocation: sourceLocation)
    let alive = try ProcessTree.descendants(of: pid).filter { entry in
      (try? TargetProcess(pid: entry.pid).liveThread()) as Int32?? ?? nil != nil
    }
    #expect(live.processesCompared == UInt64(alive.count) + 1, sourceLocation: sourceLocation)
    return live
  }

  /// Ends a tree whose processes may be stopped.
  private func end(_ target: Workload) {
    let pid = (try? target.processID()) ?? 0
    let tree = (try? ProcessTree.descendants(of: pid)) ?? []
    target.program.end()
    for entry in tree { kill(entry.pid, SIGKILL) }
  }

  @Test("every process of a tree is dumped as it was in one freeze, those that come and go included")
  func comeAndGo() throws {
    let target = try Workload("tree", ["keep=2", "deep=1", "churn=3", "life_ms=400"])
    defer { end(target) }
    let directory = try TemporaryDirectory()
    let images = directory.file("images")
    let pid = try target.processID()
    let log = Log()
    let summary = try Predump.run(options(pid, images)) { event in log.take(event) }
    #expect(summary.rounds.count == 5)
    let live = try expectEqual(images, pid)
    // The target, two children with a child each, and the one whose children come and go.
    #expect(live.processesCompared >= 6)
    let rebuilt = try ScratchRebuild.run(directory: images, comparingWith: nil)
    #expect(rebuilt.isEqual, "\(rebuilt)")

    let contents = try ChainContents(images)
    guard let session = contents.session, let top = contents.rounds.last?.record else {
      Issue.record("there is no record")
      return
    }
    #expect(session.members.first?.target.pid == pid)
    #expect(session.members.contains { $0.firstRound > 1 }, "some came later")
    #expect(session.members.contains { $0.lastRound < 5 }, "some went")
    let reports = log.members.withLock { $0 }
    #expect(reports.contains { $0.change == .left })

    // The common memory is one object with one number, whose pages are stored once.
    let shared = try target.number("shared")
    let numbers = top.members.compactMap { member in
      member.vmas.first { $0.range.contains(shared) }?.sharedObjectID
    }
    #expect(numbers.count >= 6 && Set(numbers).count == 1 && numbers[0] != 0)
    let objects = contents.rounds.last?.streams.filter {
      $0.stream == .sharedObject(id: numbers.first ?? 0)
    }
    #expect(objects?.count == 1)
    #expect(objects?.first?.pagesStored == (try target.number("shared_pages")))
  }

  @Test("a process that forks without a pause is frozen all the same")
  func storm() throws {
    let target = try Workload("tree", ["keep=0", "churn=8", "storm=1", "pages=64", "shared=16"])
    defer { end(target) }
    let directory = try TemporaryDirectory()
    let pid = try target.processID()
    for run in 0..<3 {
      let images = directory.file("images-\(run)")
      _ = try Predump.run(options(pid, images)) { _ in }
      try expectEqual(images, pid)
      for entry in try ProcessTree.descendants(of: pid).reversed() { kill(entry.pid, SIGCONT) }
      kill(pid, SIGCONT)
    }
  }

  @Test("children that exist from the last live round on, or from the freeze on, are stored whole")
  func bornLate() throws {
    let target = try Workload("tree", ["keep=1", "churn=6", "life_ms=3"])
    defer { end(target) }
    let directory = try TemporaryDirectory()
    let images = directory.file("images")
    let pid = try target.processID()
    var options = options(pid, images)
    options.policy.maxRounds = 1
    _ = try Predump.run(options) { _ in }
    try expectEqual(images, pid)
    let contents = try ChainContents(images)
    let newest = contents.rounds.last?.record
    let top = try #require(newest)
    let born = try #require(top.members.first { $0.since == 2 }, "one was born since the first round")
    #expect(born.vmas.reduce(0) { $0 + $1.pagesStored } > 0)
    #expect(born.vmas.allSatisfy { $0.pagesFromParent == 0 })
  }

  @Test("a zombie is left out, with a warning") func zombie() throws {
    let target = try Workload("zombie", [])
    defer { target.program.end() }
    let directory = try TemporaryDirectory()
    let log = Log()
    _ = try Predump.run(options(try target.processID(), directory.file("images"))) { event in
      log.take(event)
    }
    let zombie = try target.processID("zombie")
    let warnings = log.warnings.withLock { $0 }
    #expect(warnings.count { $0.contains("process \(zombie) ") } == 1, "\(warnings)")
    #expect(ChainVerifier.verify(directory.file("images")).verdict == .restorable)
    kill(try target.processID(), SIGCONT)
  }

  @Test("a descendant that another program traces is named, and nothing is touched") func traced()
    throws
  {
    let target = try Workload("traced", [])
    defer { target.program.end() }
    let directory = try TemporaryDirectory()
    let (tracer, child) = (try target.processID("tracer"), try target.processID())
    #expect {
      try Predump.run(options(tracer, directory.file("images"))) { _ in }
    } throws: { error in
      guard case PredumpError.unsuitableTarget(let pid, _) = error else { return false }
      return pid == child
    }
    #expect(!FileManager.default.fileExists(atPath: directory.file("images")))
    let smaps = String(
      decoding: FileManager.default.contents(atPath: "/proc/\(tracer)/smaps") ?? Data(),
      as: UTF8.self)
    #expect(!smaps.contains(" uw "))
  }

  @Test("a vfork child is left in peace until it has memory of its own") func vfork() throws {
    let target = try Workload("vfork", [])
    defer { target.program.end() }
    let directory = try TemporaryDirectory()
    var options = options(try target.processID(), directory.file("images"))
    options.takesFinalRound = false
    options.leave = .running
    // Its parent waits in vfork and takes no injected call: the dump gives up, and harms nothing.
    #expect(throws: PredumpError.self) { try Predump.run(options) { _ in } }
    #expect(kill(try target.processID("child"), 0) == 0)
  }

  @Test("memdump's death leaves nobody of the tree stopped or traced", arguments: [
    "midFreeze", "afterFreeze", "midFrozenCopy", "beforeThaw", "insideCall", "midRound",
  ])
  func death(fault: String) throws {
    let target = try Workload("tree", ["keep=3", "deep=1", "churn=2"])
    defer { end(target) }
    let pid = try target.processID()
    let directory = try TemporaryDirectory()
    let memdump = productsDirectory.appendingPathComponent("memdump").path
    let program = try ChildProgram(
      "/usr/bin/env",
      [
        "MEMDUMP_FAULT=\(fault)", memdump, "predump", "--tree", "--pid", "\(pid)", "--images-dir",
        directory.file("images"), "--no-sync", "-q",
      ])
    #expect(program.wait() == SIGKILL)
    let tree = [pid] + (try ProcessTree.descendants(of: pid).map(\.pid))
    #expect(tree.count >= 8)
    for member in tree {
      guard let status = try? TargetProcess(pid: member).status() else { continue }
      #expect(status.tracer == 0, "process \(member)")
      let state = try? TargetProcess(pid: member).stat().state
      #expect(state != "T" && state != "t", "process \(member)")
    }
    // And the next dump succeeds.
    var options = options(pid, directory.file("next"))
    options.leave = .running
    _ = try Predump.run(options) { _ in }
    #expect(ChainVerifier.verify(directory.file("next")).verdict == .restorable)
  }

  @Test("both ways to list a tree agree") func listing() throws {
    let target = try Workload("tree", ["keep=3", "deep=1"])
    defer { end(target) }
    let pid = try target.processID()
    func list(_ source: ProcessTree.Source) throws -> Set<Int32> {
      Set(try ProcessTree.descendants(of: pid, from: source).map(\.pid))
    }
    // Each kept child starts its own a moment later.
    let deadline = Date(timeIntervalSinceNow: 10)
    while try list(.parents).count < 6, Date() < deadline { sched_yield() }
    #expect(try list(.parents).count == 6)
    #expect(try list(.parents) == list(.children))
  }
}
