import Foundation
import Images
import Kernel
import TestSupport
import Testing

/// memdump dies by SIGKILL, and the target, which looks at itself, runs on as if nothing had been.
@Suite(.serialized) struct ChaosTests {
  private let environment = ProcessInfo.processInfo.environment
  private let images = FileManager.default.temporaryDirectory
    .appendingPathComponent("memdump-chaos-\(UUID().uuidString)").path

  /// Targets to inject into: in user mode, in a call, waiting in every call, without descriptors,
  /// stepping themselves, in a call of a second thread.
  private static let attached = [
    ["state", "kind=spin"], ["state", "kind=call"], ["parked", "call=all"],
    ["state", "kind=nofile"], ["state", "kind=stepping"], ["state", "kind=second"],
  ]
  /// Targets to dump: they know what is in their memory.
  private static let dumped = [["stamp", "pages=256", "rate=2000"], ["parked", "call=all"]]

  private static let ofAttach: [FaultPoint] = [
    .afterSeize, .afterInterrupt, .afterStop, .afterFrame, .afterRegisters, .afterMask,
    .insideCall, .afterCall, .beforeClose, .insideClose, .afterClose, .beforePutBack,
    .afterPutBack,
  ]

  private static func limits(of fault: FaultPoint) -> Set<ChaosTarget.Limit> {
    switch fault {
    case .afterInterrupt, .midFreeze: [.interruption]
    case .afterRegisters, .afterMask, .insideCall, .afterCall: [.descriptor]
    case .withRoom: [.descriptor, .room, .roomUsed]
    default: []
    }
  }

  /// Every target, if the environment asks for a long run; else some, in turn.
  private func modes(for fault: FaultPoint) -> [[String]] {
    if fault == .withRoom { return [["state", "kind=nofile"]] }
    let all = Self.ofAttach.contains(fault) ? Self.attached : Self.dumped
    if environment["MEMDUMP_CHAOS_COUNT"] != nil { return all }
    let turn = FaultPoint.allCases.firstIndex(of: fault) ?? 0
    return all.indices.filter { ($0 + turn) % 2 == 0 }.map { all[$0] }
  }

  @Test(
    "a target survives memdump's death at every labelled instant",
    arguments:
      FaultPoint.allCases.map(\.rawValue))
  func labelled(name: String) throws {
    let fault = try #require(FaultPoint(rawValue: name))
    for mode in modes(for: fault) {
      let target = try ChaosTarget(mode)
      defer { target.end() }
      let death = try target.dump(to: images, environment: ["MEMDUMP_FAULT": name])
      #expect(death.wasKilled, "\(name): \(death.output)")
      target.expectUnharmed(except: Self.limits(of: fault), name)
      expectToldApart(fault: name)
      try? FileManager.default.removeItem(atPath: images)
      try expectNextDumpSucceeds(target)
    }
  }

  @Test("a target survives memdump's death at any instant") func random() throws {
    let count = environment["MEMDUMP_CHAOS_COUNT"].flatMap { Int($0) } ?? 24
    let seed = SeededRandom.seeds(1, environment: environment)[0]
    var random = SeededRandom(seed: seed)
    let modes = Self.attached + Self.dumped
    var deaths = 0
    var met: [ChaosTarget.Limit: Int] = [:]
    // One target after the other: most of them never rest.
    for (index, mode) in modes.enumerated() {
      var target = try ChaosTarget(mode)
      defer { target.end() }
      // How long a dump of it takes here and now, so that the instants fall into it.
      var whole = try expectNextDumpSucceeds(target)
      for attempt in (count * index / modes.count)..<(count * (index + 1) / modes.count) {
        let delay = UInt64.random(in: 0..<whole, using: &random)
        let death = try target.dump(to: images, killAfter: delay)
        deaths += death.wasKilled ? 1 : 0
        let told = "seed \(seed), death \(attempt) after \(delay / 1000) us"
        target.expectUnharmed(except: [.interruption, .descriptor, .room, .roomUsed], told)
        expectToldApart(fault: nil, isWhole: !death.wasKilled)
        try? FileManager.default.removeItem(atPath: images)
        if attempt % 5 == 0 { whole = try expectNextDumpSucceeds(target) }
        if target.limits.isEmpty { continue }
        for limit in target.limits { met[limit, default: 0] += 1 }
        target.end()
        target = try ChaosTarget(mode)
      }
    }
    print("chaos: \(deaths) of \(count) died, limits met: \(met), MEMDUMP_TEST_SEED=\(seed)")
    #expect(deaths > count / 3)
    // Microseconds of a dump of many milliseconds; more where others have the processors.
    #expect(met.values.reduce(0, +) <= 2 + count / 20)
  }

  /// - Returns: how long it was at work on the target (ns).
  @discardableResult private func expectNextDumpSucceeds(
    _ target: ChaosTarget, sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> UInt64 {
    let dump = try target.dump(to: images)
    #expect(dump.succeeded, "\(dump.output)", sourceLocation: sourceLocation)
    #expect(
      ChainVerifier.verify(images).verdict == .restorable, sourceLocation: sourceLocation)
    target.expectUnharmed(sourceLocation: sourceLocation)
    try FileManager.default.removeItem(atPath: images)
    return dump.atWork
  }

  /// What was left is called restorable only if the dump came to its end.
  private func expectToldApart(
    fault: String?, isWhole: Bool = false, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let report = ChainVerifier.verify(images)
    let names = (try? FileManager.default.contentsOfDirectory(atPath: images)) ?? []
    let hasFinal = report.rounds.last?.isFrozen == true
    switch report.verdict {
    case .restorable:
      #expect(hasFinal, sourceLocation: sourceLocation)
      #expect(fault == nil, sourceLocation: sourceLocation)
      #expect(report.outcome?.isComplete == true, sourceLocation: sourceLocation)
    case .consistentNotRestorable:
      // Complete to the last round that is there.
      #expect(!isWhole, sourceLocation: sourceLocation)
      if hasFinal, let fault {
        #expect(fault == "afterFinalRename", sourceLocation: sourceLocation)
      }
      #expect(report.soundUpTo == report.rounds.last?.name, sourceLocation: sourceLocation)
    case .noImages:
      let rounds = names.filter { $0.hasPrefix("round-") && !$0.hasSuffix(".partial") }
      #expect(rounds.isEmpty && !isWhole, "\(names)", sourceLocation: sourceLocation)
    case .damaged:
      // Between a round's rename and its entry in the session's record.
      if let fault { #expect(fault.hasSuffix("Rename"), sourceLocation: sourceLocation) }
      #expect(!isWhole, "\(report.findings)", sourceLocation: sourceLocation)
    }
  }
}
