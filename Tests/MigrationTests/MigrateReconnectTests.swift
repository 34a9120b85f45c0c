import Foundation
import Kernel
import TestSupport
import Testing

/// Migrations whose link breaks and is made anew.
@Suite(.serialized, .enabled(if: Machine.isAvailable)) struct MigrateReconnectTests {
  private typealias Message = MoveAccident.Message

  private let machine: Machine

  init() throws { machine = try Machine() }

  private static let live: [AccidentProxy.Moment] = [
    .bytes(0), .bytes(300), .bytes(1_000_000),
    .frame(Message.commitRound, number: 2, isPassed: true),
  ]
  /// Three live rounds, and the frozen one is the fourth.
  private static let frozen: [AccidentProxy.Moment] = [
    .frame(Message.commitRound, number: 4, isPassed: false),
    .frame(Message.commitRound, number: 4, isPassed: true),
    .frame(Message.acknowledge, number: 4, isPassed: false),
    .frame(Message.end, isPassed: false), .frame(Message.end, isPassed: true),
    .message(Message.arrived, isPassed: false),
  ]

  @Test(
    "a link that breaks before CRIU's dump is made anew, and the process runs there",
    arguments: live + frozen, [MoveAccident.Kind.cut, .cutRounds, .cutControl])
  func survives(_ moment: AccidentProxy.Moment, _ kind: MoveAccident.Kind) throws {
    let outcome = try MoveAccident(machine, kind, [moment]).reconnecting().run()
    #expect(outcome.count == 1)
    #expect(outcome.end == .there, "\(outcome.sourceText) \(outcome.destinationText)")
  }

  @Test("a freeze whose last word got lost is repeated", arguments: frozen)
  func freezesAgain(_ moment: AccidentProxy.Moment) throws {
    let outcome = try MoveAccident(machine, .cut, [moment]).reconnecting().run()
    #expect(outcome.freezes == 2)
    #expect(outcome.end == .there)
  }

  @Test("nothing is frozen for a migration whose own connection is gone") func looksFirst() throws {
    let moment = AccidentProxy.Moment.frame(Message.commitRound, number: 2, isPassed: true)
    let outcome = try MoveAccident(machine, .cutControl, [moment]).reconnecting().run()
    #expect(outcome.freezes == 1)
    #expect(outcome.end == .there)
  }

  @Test("a process does not stand still while its destination is sought") func runsMeanwhile()
    throws
  {
    let target = try MovingTarget(machine, pages: 16384)
    let (receiver, place) = try target.receiver(["--reconnect", "30s"])
    let path = target.directory.file("proxy")
    // All that is missing is the word that it has arrived.
    let proxy = try AccidentProxy(
      at: path, to: String(place.dropFirst(5)), [.message(Message.arrived, isPassed: false)]
    ) { .isCutForGood }
    let migration = try target.migration(to: "unix:" + path, ["--reconnect", "30s"])
    try #require(migration.wait(for: "thawed") && migration.wait(for: "warning"))
    #expect(target.runsHere)
    #expect(target.answer() == "ok")
    proxy.close()
    let again = try AccidentProxy(at: path, to: String(place.dropFirst(5)), []) { .stays }
    defer { again.close() }
    #expect([0, 3].contains(migration.finish()), "\(migration.errorText)")
    #expect(receiver.finish() == 0, "\(receiver.errorText)")
    target.expectThere("sought")
    // What was written meanwhile, and not all that there is.
    let freezes = migration.events("thawed").map { $0["pages"] as? Int ?? 0 }
    #expect(freezes.count == 2)
    #expect(freezes.last ?? 0 < 8192, "\(freezes)")
  }

  @Test("a link may break again and again") func oftener() throws {
    let moments: [AccidentProxy.Moment] = [
      .bytes(500_000), .message(Message.welcome, isPassed: true), .bytes(20),
      .frame(Message.commitRound, number: 3, isPassed: true), .frame(Message.end, isPassed: true),
      .message(Message.move, isPassed: true), .message(Message.arrived, isPassed: false),
    ]
    let outcome = try MoveAccident(machine, .cut, moments).reconnecting().run()
    #expect(outcome.count == moments.count)
    #expect(outcome.end == .there, "\(outcome.sourceText) \(outcome.destinationText)")
  }

  @Test(
    "from CRIU's dump on a break ends the migration, and the process runs here",
    arguments: [Message.dumping, Message.data, Message.dumped, Message.ready, Message.go])
  func rollsBack(_ kind: UInt8) throws {
    let outcome = try MoveAccident(machine, .cut, [.message(kind, isPassed: false)])
      .reconnecting().run()
    #expect(outcome.end == .here)
    // After `go` it hears that there is no copy.
    #expect(outcome.source == (kind == Message.go ? 1 : 27), "\(outcome.sourceText)")
    #expect(outcome.destination == 27, "\(outcome.destinationText)")
    #expect(outcome.rounds >= 4, "what was stored is kept")
  }

  @Test("after the word to go the outcome is asked for, as without the option") func outcome()
    throws
  {
    let outcome = try MoveAccident(machine, .cut, [.message(Message.running, isPassed: false)])
      .reconnecting().run()
    #expect(outcome.end == .there)
    #expect([0, 3].contains(outcome.source), "\(outcome.sourceText)")
  }

  @Test("when the time is over the process runs here, and the rounds are kept") func late() throws {
    let accident = MoveAccident(
      machine, .cutForGood, [.frame(Message.acknowledge, number: 2, isPassed: true)])
    let outcome = try accident.reconnecting().run()
    #expect(outcome.end == .here)
    #expect(outcome.source == 27, "\(outcome.sourceText)")
    #expect(outcome.destination == 27, "\(outcome.destinationText)")
    #expect(outcome.rounds >= 2)
  }

  @Test("one side alone cannot make a link anew", arguments: [true, false])
  func oneSided(isSource: Bool) throws {
    var accident = MoveAccident(machine, .cutRounds, [.bytes(1_000_000)])
    (accident.sourceReconnects, accident.destinationReconnects) = (isSource, !isSource)
    let outcome = try accident.run()
    #expect(outcome.end == .here)
    #expect(outcome.source == 27, "\(outcome.sourceText)")
    // It is told by the connection that stands, and waits for nobody.
    if !isSource {
      #expect(outcome.destination == 1, "\(outcome.destinationText)")
      #expect(outcome.destinationText.contains("the other side gave up"))
    }
  }

  // MARK: Between two rounds

  /// Starts a migration that pauses after its first round, until `memdump control final`.
  private func pausing(
    _ target: MovingTarget, to place: String, _ options: [String] = ["--reconnect", "30s"]
  ) throws -> (migration: MoveProgram, goOn: () throws -> Void) {
    let control = target.directory.file("control")
    let migration = try target.migration(
      to: place, options + ["--pause-between-rounds", "1h", "--control", control])
    return (
      migration,
      {
        let program = try MoveProgram(
          [MoveProgram.path, "control", control, "final"],
          errors: target.directory.file("control.err"))
        #expect(program.finish() == 0, "\(program.errorText)")
      }
    )
  }

  @Test("a destination that died has a successor in the same directory") func successor() throws {
    let target = try MovingTarget(machine)
    let (first, place) = try target.receiver(["--reconnect", "30s"])
    let (migration, goOn) = try pausing(target, to: place)
    try #require(first.wait(for: "received"), "\(first.errorText)")
    first.send(SIGKILL)
    _ = first.finish()
    let (second, _) = try target.receiver(["--reconnect", "30s"])
    try #require(second.wait(for: "step", step: "agreed"), "\(second.errorText)")
    try #require(migration.wait(for: "warning") && migration.wait(for: "warning"))
    let said = migration.events("warning").last?["message"] as? String ?? ""
    #expect(said.contains("with 1 of 1 complete rounds"), "\(said)")
    try goOn()
    #expect([0, 3].contains(migration.finish()), "\(migration.errorText)")
    #expect(second.finish() == 0, "\(second.errorText)")
    target.expectThere("successor")
  }

  @Test("a destination that waits for its source lets no other in") func busy() throws {
    let target = try MovingTarget(machine)
    let (receiver, place) = try target.receiver(["--reconnect", "30s"])
    let (migration, goOn) = try pausing(target, to: "unix:" + target.directory.file("proxy"))
    let proxy = try AccidentProxy(
      at: target.directory.file("proxy"), to: String(place.dropFirst(5)), []
    ) { .stays }
    try #require(receiver.wait(for: "received"), "\(receiver.errorText)")
    proxy.close()
    try #require(receiver.wait(for: "warning"))
    let other = try MovingTarget(machine)
    let intruder = try other.migration(to: place)
    #expect(intruder.finish() == 1)
    #expect(intruder.errorText.contains("another migration"), "\(intruder.errorText)")
    #expect(intruder.events("attached").isEmpty)
    other.expectHere("intruder")
    let again = try AccidentProxy(
      at: target.directory.file("proxy"), to: String(place.dropFirst(5)), []
    ) { .stays }
    defer { again.close() }
    try #require(migration.wait(for: "warning") && migration.wait(for: "warning"))
    try goOn()
    #expect([0, 3].contains(migration.finish()), "\(migration.errorText)")
    #expect(receiver.finish() == 0, "\(receiver.errorText)")
    target.expectThere("busy")
  }

  @Test("a destination that gives up is not sought again") func refused() throws {
    let target = try MovingTarget(machine)
    let (receiver, place) = try target.receiver(["--reconnect", "30s", "--max-size", "1MiB"])
    let migration = try target.migration(to: place, ["--reconnect", "1h"])
    #expect(migration.finish() == 27)
    #expect(migration.errorText.contains("bytes that are allowed"), "\(migration.errorText)")
    #expect(receiver.finish() == 12, "\(receiver.errorText)")
    target.expectHere("refused")
  }

  @Test("a destination with the rounds of another dump is of no use, which is said at once")
  func foreignRounds() throws {
    let target = try MovingTarget(machine)
    let (first, place) = try target.receiver(["--reconnect", "30s"])
    let (migration, _) = try pausing(target, to: place)
    try #require(first.wait(for: "received"), "\(first.errorText)")
    first.send(SIGKILL)
    migration.send(SIGKILL)
    _ = (first.finish(), migration.finish())
    let (second, _) = try target.receiver(["--reconnect", "30s"])
    let other = try target.migration(to: place, ["--reconnect", "1h"])
    #expect(other.finish() == 27)
    #expect(other.errorText.contains("rounds of another dump"), "\(other.errorText)")
    #expect(second.finish() == 1, "\(second.errorText)")
    target.expectHere("foreign rounds")
  }

  @Test("what cannot be taken again is not begun") func usage() throws {
    let target = try MovingTarget(machine)
    let migration = try target.migration(
      to: "unix:" + target.directory.file("nobody"), ["--tree", "--reconnect", "5s"])
    #expect(migration.finish() == 64)
    #expect(migration.errorText.contains("--reconnect"), "\(migration.errorText)")
    target.expectHere("usage")
  }
}
