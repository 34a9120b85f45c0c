internal import Kernel

/// Decides whether a round that came from elsewhere may join the session: whether it is sound by
/// itself and fits the rounds before it.
struct RoundAdmission {
  /// What the next round must fit.
  private struct Parent {
    let name: String
    let record: RoundRecord

    init(name: String, record: RoundRecord) {
      var record = record
      // Only who it is of and its digest matter: the rest may be long.
      for index in record.members.indices { record.members[index].vmas = [] }
      record.files = []
      record.digestOffsets = [:]
      self.name = name
      self.record = record
    }
  }

  private var parent: Parent?
  /// Digest of the first round's record.
  private var first: Digest128?

  /// What is there, for a greeting.
  func stored(_ count: Int) -> StoredRounds {
    guard let parent, let first, count > 0 else { return StoredRounds() }
    return StoredRounds(count: count, first: first, last: parent.record.fileDigest)
  }

  /// Goes on after rounds that were admitted earlier, by another receiver.
  mutating func resume(after rounds: [String], pid: Int32, in session: borrowing Directory)
    throws(ImageError)
  {
    guard let oldest = rounds.first, let newest = rounds.last else { return }
    first = try Self.record(of: oldest, pid: pid, in: session).fileDigest
    parent = Parent(name: newest, record: try Self.record(of: newest, pid: pid, in: session))
  }

  private static func record(of round: String, pid: Int32, in session: borrowing Directory)
    throws(ImageError) -> RoundRecord
  {
    let directory = try onFile(session.join(round)) { () throws(KernelError) in
      try session.directory(round)
    }
    return try RoundRecordReader.read(pid: pid, in: directory)
  }

  /// Checks the round, which lies in its `.partial` directory.
  ///
  /// - Throws: the first thing that is wrong with it.
  mutating func admit(_ round: IncomingRound, index: Int, in session: borrowing Directory)
    throws(ImageError)
  {
    var log = FindingLog()
    let result = try RoundVerifier(name: round.name, isTop: true, needsRecord: true)
      .check(round.directory, log: &log)
    try checkCoverage(round.directory, session, &log)
    if let record = result.record, let parent {
      MemberContinuity.check(
        result, record, parent: parent.record, path: round.directory.path, &log)
    }
    try Self.throwDamage(log)
    guard let record = result.record else {
      throw ImageError(.record, file: round.directory.path, "the round has no record")
    }
    let fits =
      record.index == index && record.parentName == parent?.name
      && record.parentRecord == parent?.record.fileDigest
      && record.target.isSameProcess(as: parent?.record.target ?? record.target)
    guard fits else {
      throw ImageError(
        .parentRecord, file: round.directory.path,
        "the round was not taken against the one before it")
    }
    parent = Parent(name: round.name, record: record)
    first = first ?? record.fileDigest
  }

  /// Checks that the session's record is about the process that the rounds are of.
  func check(session: SessionRecord, from subject: String) throws(ImageError) {
    guard let parent else { return }
    guard session.target.isSameProcess(as: parent.record.target) else {
      throw ImageError(.session, file: subject, "the rounds are of another process")
    }
    var log = FindingLog()
    MemberContinuity.check(parent.record, session, path: subject, &log)
    try Self.throwDamage(log)
  }

  private static func throwDamage(_ log: FindingLog) throws(ImageError) {
    guard let finding = log.findings.first(where: { $0.severity == .damage }) else { return }
    throw ImageError(
      finding.kind, file: finding.file, byteOffset: finding.byteOffset, address: finding.address,
      finding.message)
  }

  private func checkCoverage(
    _ directory: borrowing Directory, _ session: borrowing Directory, _ log: inout FindingLog
  ) throws(ImageError) {
    let streams = try Self.streams(of: directory)
    guard let parent else {
      for stream in streams {
        try ParentCoverage.checkWithoutParent(stream, child: directory, log: &log)
      }
      return
    }
    let older = try onFile(session.join(parent.name)) { () throws(KernelError) in
      try session.directory(parent.name)
    }
    let known = Set(try Self.streams(of: older))
    for stream in streams {
      if known.contains(stream) {
        try ParentCoverage.check(stream, child: directory, parent: older, log: &log)
      } else {
        try ParentCoverage.checkWithoutParent(stream, child: directory, log: &log)
      }
    }
  }

  private static func streams(of directory: borrowing Directory) throws(ImageError)
    -> [ImageStream]
  {
    let names = try onFile(directory.path) { () throws(KernelError) in try directory.names() }
    return names.compactMap { ImageStream(pagemapName: $0) }.sorted()
  }
}
