import Foundation
import Kernel
import Synchronization
import TestSupport
import Testing

/// Whatever breaks at whatever moment: afterwards the process runs on exactly one side.
@Suite(.serialized, .enabled(if: Machine.isAvailable)) struct MigrateAccidentTests {
  private let machine: Machine

  init() throws { machine = try Machine() }

  private typealias Kind = MoveAccident.Message

  private static let cases: [(MoveAccident.Kind, UInt8, Bool, [MoveAccident.End])] = [
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
  func steps(
    _ accident: MoveAccident.Kind, _ kind: UInt8, isPassed: Bool, ends: [MoveAccident.End]
  ) throws {
    let end = try MoveAccident(machine, accident, [.message(kind, isPassed: isPassed)]).run().end
    #expect(ends.contains(end), "\(accident) at message \(kind): \(end)")
  }

  @Test("in the midst of a round it stays here", arguments: MoveAccident.Kind.allCases)
  func rounds(_ accident: MoveAccident.Kind) throws {
    #expect(try MoveAccident(machine, accident, [.bytes(1_000_000)]).run().end == .here)
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
      at: target.directory.file("proxy"), to: String(place.dropFirst(5)), [moment]
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

  // MEMDUMP_CUTS: how many; MEMDUMP_TEST_SEED plays them again.
  @Test("at random moments it runs on exactly one side afterwards") func random() throws {
    let environment = ProcessInfo.processInfo.environment
    let seed = environment["MEMDUMP_TEST_SEED"].flatMap { UInt64($0) } ?? .random(in: 0...1 << 48)
    print("MEMDUMP_TEST_SEED=\(seed)")
    var random = SeededRandom(seed: seed)
    var counts: [String: Int] = [:]
    for turn in 1...(environment["MEMDUMP_CUTS"].flatMap { Int($0) } ?? 8) {
      let kind = MoveAccident.Kind.allCases.randomElement(using: &random) ?? .cut
      let reconnects = turn % 2 == 0
      // Who sleeps is woken once.
      let most = reconnects && kind != .sourceSleeps ? 3 : 1
      let moments = (0..<Int.random(in: 1...most, using: &random)).map { _ in
        Self.moment(&random)
      }
      var accident = MoveAccident(machine, kind, moments)
      (accident.sourceReconnects, accident.destinationReconnects) = (reconnects, reconnects)
      accident.turn = turn
      accident.pause = UInt32.random(in: 0...20_000, using: &random)
      let outcome = try accident.run()
      counts["\(outcome.end)\(reconnects ? " with --reconnect" : "")", default: 0] += 1
    }
    print("after random accidents the process was: \(counts)")
  }

  private static func moment(_ random: inout SeededRandom) -> AccidentProxy.Moment {
    let isPassed = Bool.random(using: &random)
    switch Int.random(in: 0..<4, using: &random) {
    case 0, 1: return .bytes(Int.random(in: 0...6_000_000, using: &random))
    case 2:
      let kind = [Kind.commitRound, Kind.end, Kind.acknowledge].randomElement(using: &random)
      return .frame(
        kind ?? Kind.end, number: kind == Kind.end ? 1 : Int.random(in: 1...5, using: &random),
        isPassed: isPassed)
    default:
      return .message(Kind.all.randomElement(using: &random) ?? Kind.go, isPassed: isPassed)
    }
  }
}
