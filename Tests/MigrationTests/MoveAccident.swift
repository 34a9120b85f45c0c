import Foundation
import Kernel
import Synchronization
import TestSupport
import Testing

/// A migration to which something happens.
struct MoveAccident {
  /// What breaks.
  enum Kind: CaseIterable {
    /// All connections; new ones can be made.
    case cut
    /// That of the rounds, or the migration's own, alone; new ones can be made.
    case cutRounds, cutControl
    /// All connections, for ever.
    case cutForGood
    /// SIGKILL for memdump.
    case sourceDies, destinationDies
    /// memdump stands still here until the other side has given up.
    case sourceSleeps
  }

  /// What became of a migration.
  enum End: Equatable { case here, there, heldHere }

  /// The message kinds of `MoveMessage`, and of rounds.
  enum Message {
    static let commitRound: UInt8 = 6
    static let end: UInt8 = 8
    static let acknowledge: UInt8 = 16
    static let move: UInt8 = 32
    static let welcome: UInt8 = 33
    static let dumped: UInt8 = 34
    static let ready: UInt8 = 35
    static let go: UInt8 = 36
    static let running: UInt8 = 37
    static let settled: UInt8 = 41
    static let arrived: UInt8 = 42
    static let dumping: UInt8 = 43
    static let data: UInt8 = 4
    static let all = [
      move, welcome, arrived, dumping, data, dumped, ready, go, running, settled,
    ]
  }

  let machine: Machine
  let kind: Kind
  let moments: [AccidentProxy.Moment]
  /// How long after a moment it happens (µs).
  var pause: UInt32 = 0
  /// Whether either side has --reconnect.
  var sourceReconnects = false
  var destinationReconnects = false
  var turn = 0

  init(_ machine: Machine, _ kind: Kind, _ moments: [AccidentProxy.Moment]) {
    self.machine = machine
    self.kind = kind
    self.moments = moments
  }

  /// With --reconnect on both sides.
  func reconnecting() -> MoveAccident {
    var other = self
    (other.sourceReconnects, other.destinationReconnects) = (true, true)
    return other
  }

  /// How a migration ended.
  struct Outcome {
    var end: End
    /// Exit codes, or the source's signal.
    var source: Int32
    var destination: Int32
    /// What they said to people.
    var sourceText: String
    var destinationText: String
    /// How often the accident happened.
    var count: Int
    /// Rounds that the destination kept or used.
    var rounds: Int
    /// How often the process was frozen.
    var freezes: Int
  }

  /// Migrates a process, and expects that it then runs on one side.
  func run() throws -> Outcome {
    let what: Comment = "turn \(turn): \(kind) at \(moments) + \(pause) us"
    let target = try MovingTarget(machine)
    func options(_ outcome: String, _ reconnects: Bool) -> [String] {
      ["--outcome-timeout", outcome, "--link-timeout", "3s"]
        + (reconnects ? ["--reconnect", "5s"] : [])
    }
    let (receiver, place) = try target.receiver(options("4s", destinationReconnects))
    let source = LateProcess()
    let destination = receiver.memdump
    let (kind, pause) = (kind, pause)
    let proxy = try AccidentProxy(
      at: target.directory.file("proxy"), to: String(place.dropFirst(5)), moments
    ) {
      usleep(pause)
      switch kind {
      case .cut: return .isCut
      case .cutRounds: return .isCutOfRounds
      case .cutControl: return .isCutOfControl
      case .cutForGood: return .isCutForGood
      case .sourceDies: kill(source.get(), SIGKILL)
      case .destinationDies: kill(destination, SIGKILL)
      case .sourceSleeps: kill(source.get(), SIGSTOP)
      }
      return .stays
    }
    defer { proxy.close() }
    let migration = try target.migration(
      to: "unix:" + target.directory.file("proxy"), options("2s", sourceReconnects))
    source.set(migration.pid)
    if kind == .sourceSleeps {
      // It waits to be asked, or to be connected to, or has ended.
      _ = receiver.wait(for: "warning")
      kill(migration.pid, SIGCONT)
    }
    let status = migration.finish()
    let taken = receiver.finish()
    let isKilled = kind == .sourceDies && status == SIGKILL
    #expect([0, 1, 3, 27, 29].contains(status) || isKilled, "\(what) \(migration.errorText)")
    let end = try settle(target, what, status)
    switch status {
    case 0, 3: #expect(end == .there, "\(what): 0, but \(end)")
    case 29: #expect(end == .heldHere, "\(what): 29, but \(end)")
    case 1, 27: #expect(end == .here, "\(what): \(status), but \(end) \(migration.errorText)")
    default: break
    }
    if taken == 0 { #expect(end != .here, "\(what)") }
    if ![0, 3].contains(status), !isKilled { #expect(!migration.errorText.isEmpty, what) }
    let names = (try? FileManager.default.contentsOfDirectory(atPath: target.images)) ?? []
    return Outcome(
      end: end, source: status, destination: taken, sourceText: migration.errorText,
      destinationText: receiver.errorText, count: proxy.actCount,
      rounds: names.filter { $0.hasPrefix("round-") }.count,
      freezes: migration.events("thawed").count)
  }

  /// Waits until it is where it stays, and decides by `memdump resolve` if nobody else can.
  private func settle(
    _ target: MovingTarget, _ what: Comment, _ status: Int32
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
      target.expectHere(what, isClean: kind != .destinationDies)
    } else {
      target.expectThere(what)
    }
    return end
  }

  /// Whether memdump was killed after it had written its note: then nobody lets the process go on.
  private static func isHeldForResolution(_ target: MovingTarget) -> Bool {
    target.notes.contains { FileManager.default.fileExists(atPath: $0 + "/decision") }
  }
}

/// A pid that is known only after the proxy listens.
final class LateProcess: Sendable {
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
