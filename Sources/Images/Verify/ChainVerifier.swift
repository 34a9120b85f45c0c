internal import Kernel

/// Checks everything that can be known about a chain of images without restoring it.
///
/// Walks from the newest round to the oldest: framing, messages, order, flags, lengths to the byte,
/// every compressed block, the digest of every block where memdump wrote the images, and whether
/// every page that a round takes from its parent is there.
public struct ChainVerifier {
  private let path: String
  private var log = FindingLog()
  private var results: [RoundVerifier.Result] = []

  private init(_ path: String) { self.path = path }

  /// Checks the chain at `path`: a session's directory, or one round's.
  ///
  /// Never throws: what cannot be read is a finding.
  public static func verify(_ path: String) -> ChainReport {
    var verifier = ChainVerifier(path)
    do throws(ImageError) {
      return try verifier.run(ImageChain(path))
    } catch {
      verifier.log.damage(error)
      return verifier.report(.noImages, nil)
    }
  }

  private mutating func run(_ chain: borrowing ImageChain) throws(ImageError) -> ChainReport {
    let session = readSession(chain)
    for name in chain.partialNames {
      log.notice(
        ImageError(
          .superfluousFile, file: chain.session.join(name), "left over from a dump that died"))
    }
    if chain.rounds.isEmpty {
      if let problem = chain.linkProblem { log.damage(problem) }
      checkSession(session, chain)
      return report(log.damageCount == 0 ? .noImages : .damaged, session)
    }
    let sessionNeedsRecords = chain.isSession && (session != nil || anyHasRecord(chain))
    for (level, name) in chain.rounds.enumerated() {
      log.round = name
      // A directory of CRIU's may lie on top of rounds of ours, but not between or under them.
      let needsRecord = sessionNeedsRecords || level > 0 && results[level - 1].record != nil
      checkRound(name, level: level, needsRecord: needsRecord, chain)
    }
    log.round = chain.rounds.last
    if let problem = chain.linkProblem { log.damage(problem) }
    checkParents(chain)
    checkTopInventory(chain)
    noteUnreadable(chain)
    log.round = nil
    checkSession(session, chain)
    return report(verdict(session), session)
  }

  private func verdict(_ session: SessionRecord?) -> ChainReport.Verdict {
    if log.damageCount > 0 { return .damaged }
    guard let top = results.first else { return .noImages }
    // Without a record of ours: a full dump of CRIU's has the VMAs, a pre-dump has not.
    let isWhole = top.round.isFrozen ?? top.hasMM
    // A dump is complete when its record says so. Who asked for it was told of a failure otherwise,
    // and the process runs on.
    let isOver = session?.outcome.isComplete ?? true
    return isWhole && isOver ? .restorable : .consistentNotRestorable
  }

  private func anyHasRecord(_ chain: borrowing ImageChain) -> Bool {
    for name in chain.rounds {
      guard let directory = try? chain.open(name), let names = try? directory.names() else {
        continue
      }
      if names.contains(where: { $0.hasPrefix("memdump-") && $0.hasSuffix(".img") }) {
        return true
      }
    }
    return false
  }

  private mutating func checkRound(
    _ name: String, level: Int, needsRecord: Bool, _ chain: borrowing ImageChain
  ) {
    // A round that cannot be read at all still counts as one, for those on top of it.
    var result = RoundVerifier.Result(round: ChainReport.Round(name: name))
    do throws(ImageError) {
      let directory = try chain.open(name)
      let verifier = RoundVerifier(name: name, isTop: level == 0, needsRecord: needsRecord)
      result = try verifier.check(directory, log: &log)
      try checkCoverage(level, directory, chain)
    } catch {
      log.damage(error)
    }
    results.append(result)
  }

  /// Whether every page that a round takes from its parent is there.
  private mutating func checkCoverage(
    _ level: Int, _ directory: borrowing Directory, _ chain: borrowing ImageChain
  ) throws(ImageError) {
    let older = level + 1 < chain.rounds.count ? chain.rounds[level + 1] : nil
    var olderStreams: Set<ImageStream> = []
    if let older { olderStreams = Set(try chain.streams(of: older)) }
    for stream in try chain.streams(of: chain.rounds[level]) {
      do throws(ImageError) {
        if let older, olderStreams.contains(stream) {
          try ParentCoverage.check(
            stream, child: directory, parent: try chain.open(older), log: &log)
        } else {
          try ParentCoverage.checkWithoutParent(stream, child: directory, log: &log)
        }
      } catch {
        // A pagemap that cannot be read was noted with its own round.
      }
    }
  }

  /// Whether each round's parent is the one that it was taken against.
  private mutating func checkParents(_ chain: borrowing ImageChain) {
    for (level, result) in results.enumerated() {
      guard let record = result.record else { continue }
      log.round = result.round.name
      let path = chain.session.join(result.round.name)
      let parent = level + 1 < results.count ? results[level + 1] : nil
      if record.parentName != parent?.round.name {
        log.damage(
          ImageError(
            .parentRecord, file: path,
            "the parent is \(parent?.round.name ?? "missing"), and was \(record.parentName ?? "none")"
          ))
      }
      guard let older = parent?.record else { continue }
      if record.parentRecord != older.fileDigest {
        log.damage(
          ImageError(
            .parentRecord, file: path, "the parent is not the round that this one was taken against"
          ))
      }
      if record.index != older.index + 1 || !record.target.isSameProcess(as: older.target) {
        log.damage(
          ImageError(
            .parentRecord, file: path, "the parent is not the round before, or of another process"))
      }
      MemberContinuity.check(result, record, parent: older, path: path, &log)
    }
  }

  /// CRIU decides by the newest inventory whether it can read the whole chain.
  private mutating func checkTopInventory(_ chain: borrowing ImageChain) {
    guard let top = results.first, let inventory = top.inventory,
      inventory.version < ImageFormat.compressedVersion, results.contains(where: \.usesBlocks),
      !top.usesBlocks
    else { return }
    log.round = top.round.name
    log.damage(
      ImageError(
        .inventory, file: chain.session.join(top.round.name),
        "an older round has compressed pages, but the version is \(inventory.version)"))
  }

  /// What the newest round could not store is not damage, but a restore lacks it.
  private mutating func noteUnreadable(_ chain: borrowing ImageChain) {
    guard let top = results.first, let record = top.record else { return }
    log.round = top.round.name
    for vma in record.members.flatMap(\.vmas) where vma.treatment == .unreadable {
      log.notice(
        ImageError(
          .unreadableMemory, file: chain.session.join(top.round.name), address: vma.range.start,
          "\(vma.range.byteCount) bytes of memory that nobody but the process may read"))
    }
  }

  private mutating func readSession(_ chain: borrowing ImageChain) -> SessionRecord? {
    if !chain.isSession { return nil }
    do throws(ImageError) {
      return try SessionRecord.read(from: chain.session)
    } catch {
      if error.kind == .missingFile {
        log.notice(ImageError(.session, file: path, "there is no session record"))
      } else {
        log.damage(error)
      }
      return nil
    }
  }

  private mutating func checkSession(_ session: SessionRecord?, _ chain: borrowing ImageChain) {
    for name in chain.strayRounds {
      log.damage(
        ImageError(
          .session, file: chain.session.join(name), "the round is not in the newest one's chain"))
    }
    guard let session else { return }
    let found = Array(chain.rounds.reversed())
    let isSame =
      session.outcome == .running
      ? found.starts(with: session.rounds) : found == session.rounds
    if !isSame {
      log.damage(
        ImageError(
          .session, file: chain.session.path,
          "there are \(found.count) rounds, but the session committed \(session.rounds.count), or "
            + "they have other names"))
    }
    for record in results.compactMap(\.record) {
      MemberContinuity.check(record, session, path: chain.session.path, &log)
    }
    guard let top = results.first?.record else { return }
    if !top.target.isSameProcess(as: session.target) {
      log.damage(
        ImageError(.session, file: chain.session.path, "the rounds are of another process"))
    }
    if !session.outcome.isComplete && top.kind == .frozen {
      log.notice(
        ImageError(
          .session, file: chain.session.join(SessionRecord.fileName),
          "the dump did not come to its end after the last round, and the process may have run on; "
            + "that round for itself is sound"))
    }
    if session.outcome.isComplete && top.kind == .live {
      log.damage(
        ImageError(
          .session, file: chain.session.path,
          "the session is complete, but its newest round was taken from the running process"))
    }
  }

  private func report(_ verdict: ChainReport.Verdict, _ session: SessionRecord?) -> ChainReport {
    var report = ChainReport(verdict: verdict, directory: path)
    report.rounds = results.reversed().map { result in
      var round = result.round
      round.isSound = !log.damagedRounds.contains(round.name)
      return round
    }
    report.soundUpTo = report.rounds.prefix(while: \.isSound).last?.name
    report.contentChecked = !results.isEmpty && results.allSatisfy(\.round.hasDigests)
    report.outcome = session?.outcome
    report.findings = log.findings
    report.counts = DamageKind.allCases.compactMap { kind in
      log.counts[kind].map { ChainReport.Count(kind: kind, count: $0) }
    }
    return report
  }
}

extension TargetIdentity {
  /// Whether both are the same process of the same boot; `execve` changes the name only.
  func isSameProcess(as other: TargetIdentity) -> Bool {
    pid == other.pid && startTicks == other.startTicks && bootID == other.bootID
  }
}
