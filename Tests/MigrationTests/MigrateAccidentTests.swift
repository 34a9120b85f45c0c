import Foundation
import Kernel
import Synchronization
import TestSupport
import Testing

/// Whatever breaks at whatever moment: afterwards the process runs on exactly one side.
@Suite(.serialized, .enabled(if: Machine.isAvailable)) struct MigrateAccidentTests {
  private let machine: Machine

  init() throws { machine = try Machine() }

  /// What breaks.
  enum Accident: CaseIterable {
    /// All connections; new ones can be made.
    case cut
    /// All connections, for ever.
    case cutForGood
    /// SIGKILL for memdump.
    case sourceDies, destinationDies
    /// memdump stands still here until the other side has given up.
    case sourceSleeps
  }

  /// What became of a migration.
  enum End: Equatable { case here, there, heldHere }

  /// The message kinds of `MoveMessage`.
  private enum Kind {
    static let move: UInt8 = 32
    static let welcome: UInt8 = 33
    static let dumped: UInt8 = 34
    static let ready: UInt8 = 35
    static let go: UInt8 = 36
    static let running: UInt8 = 37
    static let settled: UInt8 = 41
    static let data: UInt8 = 4
    static let all = [move, welcome, data, dumped, ready, go, running, settled]
  }

  private static let cases: [(Accident, UInt8, Bool, [End])] = [
    (.cut, Kind.data, false, [.here]),
    (.cut, Kind.dumped, false, [.here]),
    (.cut, Kind.ready, false, [.here]),
    (.cut, Kind.go, false, [.here]),
    (.cut, Kind.go, true, [.here, .there]),
    (.cut, Kind.running, false, [.there]),
    (.cut, Kind.running, true, [.there]),
    (.cutForGood, Kind.ready, false, [.here]),
    (.cutForGood, Kind.go, false, [.heldHere]),
    (.cutForGood, Kind.running, false, [.heldHere]),
    (.sourceDies, Kind.data, false, [.here]),
    (.sourceDies, Kind.ready, false, [.here]),
    (.sourceDies, Kind.go, false, [.heldHere]),
    (.sourceDies, Kind.running, false, [.heldHere]),
    (.sourceSleeps, Kind.ready, false, [.here]),
    (.destinationDies, Kind.data, false, [.here]),
    (.destinationDies, Kind.ready, false, [.here, .heldHere]),
    (.destinationDies, Kind.go, false, [.heldHere]),
    (.destinationDies, Kind.running, false, [.heldHere, .there]),
  ]

  // Before the destination is told `go`, the process stays here. From then on the destination knows;
  // who cannot ask leaves the process held. What the destination said before it died may still come.
  @Test(
    "at every step of the last part it is known who may run the process",
    arguments: MigrateAccidentTests.cases)
  func steps(_ accident: Accident, _ kind: UInt8, isPassed: Bool, ends: [End]) throws {
    let end = try run(accident, .message(kind, isPassed: isPassed), turn: 0)
    #expect(ends.contains(end), "\(accident) at message \(kind): \(end)")
  }

  @Test("in the midst of a round it stays here", arguments: Accident.allCases)
  func rounds(_ accident: Accident) throws {
    #expect(try run(accident, .bytes(1_000_000), turn: 0) == .here)
  }

  // If CRIU dies with memdump, SIGSTOP alone holds the process.
  @Test(
    "resolve asks the destination what became of it",
    arguments: [(true, false), (false, false), (true, true), (false, true)])
  func resolves(isRunning: Bool, criuDies: Bool) throws {
    let target = try MovingTarget(machine)
    let (receiver, place) = try target.receiver(["--outcome-timeout", "30s"])
    let source = LateProcess()
    // memdump dies with the word on its lips: `go` arrives there or does not.
    let moment = AccidentProxy.Moment.message(
      isRunning ? Kind.running : Kind.go, isPassed: false)
    let proxy = try AccidentProxy(
      at: target.directory.file("proxy"), to: String(place.dropFirst(5)), moment
    ) {
      kill(source.get(), SIGKILL)
      return .isCut
    }
    defer { proxy.close() }
    let migration = try target.migration(to: "unix:" + target.directory.file("proxy"))
    source.set(migration.pid)
    #expect(migration.finish() == SIGKILL)
    #expect(receiver.wait(for: "warning"), "it waits for the question")
    #expect(target.stateHere == "T" || target.stateHere == "t")
    if criuDies {
      let criu = try #require(target.holder)
      kill(criu, SIGKILL)
      #expect(eventually { kill(criu, 0) != 0 })
      // Who would let the process go on has gone, and has not done so.
      #expect(eventually { !target.isGuarded })
      #expect(target.stateHere == "T")
    }
    let resolve = try MoveProgram(
      [MoveProgram.path, "resolve", try #require(target.notes.first), "--json"],
      errors: target.directory.file("resolve.err"))
    #expect(resolve.finish() == 0, "\(resolve.errorText)")
    let outcome = resolve.events("resolved").first?["outcome"] as? String
    #expect(outcome == (isRunning ? "running" : "aborted"))
    #expect(receiver.finish() == (isRunning ? 0 : 27), "\(receiver.errorText)")
    if isRunning { target.expectThere("resolved") } else { target.expectHere("resolved") }
  }

  // MEMDUMP_CUT_COUNT: how many; MEMDUMP_TEST_SEED plays them again.
  @Test("at random moments it runs on exactly one side afterwards") func random() throws {
    let environment = ProcessInfo.processInfo.environment
    let seed = environment["MEMDUMP_TEST_SEED"].flatMap { UInt64($0) } ?? .random(in: 0...1 << 48)
    print("MEMDUMP_TEST_SEED=\(seed)")
    var random = SeededRandom(seed: seed)
    var counts: [String: Int] = [:]
    for turn in 1...(environment["MEMDUMP_CUT_COUNT"].flatMap { Int($0) } ?? 8) {
      let accident = Accident.allCases.randomElement(using: &random) ?? .cut
      let moment: AccidentProxy.Moment =
        Bool.random(using: &random)
        ? .bytes(Int.random(in: 0...6_000_000, using: &random))
        : .message(
          Kind.all.randomElement(using: &random) ?? Kind.go,
          isPassed: Bool.random(using: &random))
      let pause = UInt32.random(in: 0...20_000, using: &random)
      let end = try run(accident, moment, turn: turn, pause: pause)
      counts["\(end)", default: 0] += 1
    }
    print("after random accidents the process was: \(counts)")
  }

  /// Migrates a process with an accident, and expects that it then runs on one side.
  ///
  /// - Parameter pause: how long after the moment it happens (µs).
  private func run(
    _ accident: Accident, _ moment: AccidentProxy.Moment, turn: Int, pause: UInt32 = 0
  ) throws -> End {
    let what: Comment = "turn \(turn): \(accident) at \(moment) + \(pause) us"
    let target = try MovingTarget(machine)
    let (receiver, place) = try target.receiver(["--outcome-timeout", "4s", "--link-timeout", "3s"])
    let source = LateProcess()
    let destination = receiver.memdump
    let proxy = try AccidentProxy(
      at: target.directory.file("proxy"), to: String(place.dropFirst(5)), moment
    ) {
      usleep(pause)
      switch accident {
      case .cut: return .isCut
      case .cutForGood: return .isCutForGood
      case .sourceDies: kill(source.get(), SIGKILL)
      case .destinationDies: kill(destination, SIGKILL)
      case .sourceSleeps: kill(source.get(), SIGSTOP)
      }
      return .stays
    }
    defer { proxy.close() }
    let migration = try target.migration(
      to: "unix:" + target.directory.file("proxy"),
      ["--outcome-timeout", "2s", "--link-timeout", "3s"])
    source.set(migration.pid)
    if accident == .sourceSleeps {
      // It waits to be asked, or has ended.
      _ = receiver.wait(for: "warning")
      kill(migration.pid, SIGCONT)
    }
    let status = migration.finish()
    let taken = receiver.finish()
    let isKilled = accident == .sourceDies && status == SIGKILL
    #expect([0, 1, 3, 27, 29].contains(status) || isKilled, "\(what) \(migration.errorText)")
    let end = try settle(target, accident, what, status)
    switch status {
    case 0, 3: #expect(end == .there, "\(what): 0, but \(end)")
    case 29: #expect(end == .heldHere, "\(what): 29, but \(end)")
    case 1, 27: #expect(end == .here, "\(what): \(status), but \(end) \(migration.errorText)")
    default: break
    }
    if taken == 0 { #expect(end != .here, "\(what)") }
    if ![0, 3].contains(status), !isKilled { #expect(!migration.errorText.isEmpty, what) }
    return end
  }

  /// Waits until it is where it stays, and decides by `memdump resolve` if nobody else can.
  private func settle(
    _ target: MovingTarget, _ accident: Accident, _ what: Comment, _ status: Int32
  ) throws -> End {
    var end = End.here
    // Who died leaves it to others, which takes a moment: criu gives up, the guard lets go on.
    let isSettled = eventually {
      if target.runsHere {
        end = .here
      } else if target.stateHere == nil {
        end = .there
      } else {
        end = .heldHere
        return status == 29 || Self.isHeldForResolution(target)
      }
      return true
    }
    #expect(isSettled, "\(what): \(String(describing: target.stateHere)), \(target.notes)")
    if end == .heldHere {
      // It is stopped here: what is there may run.
      let note = try #require(target.notes.first, what)
      let outcome = target.isThere ? "running" : "aborted"
      let resolve = try MoveProgram(
        [MoveProgram.path, "resolve", note, "--outcome", outcome],
        errors: target.directory.file("resolve.err"))
      #expect(resolve.finish() == 0, "\(what) \(resolve.errorText)")
      if outcome == "running" {
        target.expectThere(what)
      } else {
        target.expectHere(what, isClean: false)
      }
      #expect(target.notes.isEmpty, what)
    } else if end == .here {
      target.expectHere(what, isClean: accident != .destinationDies)
    } else {
      target.expectThere(what)
    }
    return end
  }

  /// Whether memdump was killed after it had written its note: then nobody lets the process go on.
  private static func isHeldForResolution(_ target: MovingTarget) -> Bool {
    target.notes.contains { FileManager.default.fileExists(atPath: $0 + "/decision") }
  }

  /// A pid that is known only after the proxy listens.
  private final class LateProcess: Sendable {
    private let value = Atomic<Int32>(0)

    func set(_ pid: Int32) { value.store(pid, ordering: .releasing) }

    func get() -> Int32 {
      while true {
        let pid = value.load(ordering: .acquiring)
        // 0 would mean this very process's group.
        if pid > 0 { return pid }
        usleep(100)
      }
    }
  }
}
