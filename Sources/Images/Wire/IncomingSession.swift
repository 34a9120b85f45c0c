package import Kernel
internal import SystemPackage

/// The receiving end's half of a session: carries out frames, in one directory.
///
/// Takes anything that may come. Files have the names that rounds have and no others, lie in a
/// round's `.partial` directory, and are checked by length and digest when they end and as a round
/// before the round gets its name. Links are made here only. Dropped in the midst of a round, it
/// removes that round.
package struct IncomingSession: ~Copyable {
  /// What a frame asks the receiver to say.
  package enum Answer: Sendable, Equatable {
    case nothing
    /// A round is stored: so many are there now.
    case acknowledge(rounds: Int)
    /// The sender is done.
    case end(rounds: Int)
  }

  private let session: Directory
  private let subject: String
  private let sync: Bool
  private let byteLimit: UInt64
  private var bytesStored: UInt64 = 0
  private var admission = RoundAdmission()
  private var round: IncomingRound?
  private var sessionFile: IncomingFile?
  /// Directory names of the complete rounds, oldest first.
  package private(set) var rounds: [String] = []
  /// How the session stands, by the sender's last word; nil if it said nothing.
  package private(set) var outcome: SessionOutcome?

  /// Stores into `session`, which holds no rounds yet.
  ///
  /// - Parameters:
  ///   - subject: how people call the sender.
  ///   - byteLimit: bytes that may be written in all.
  package init(
    into session: consuming Directory, from subject: String, sync: Bool, byteLimit: UInt64
  ) {
    self.session = session
    self.subject = subject
    self.sync = sync
    self.byteLimit = byteLimit
  }

  /// Goes on with a session whose receiver ended, in the directory that has its complete rounds. What
  /// else that left of a round is removed.
  ///
  /// - Throws: kind `.session` if there is nothing that could go on.
  package init(
    resuming session: consuming Directory, from subject: String, sync: Bool, byteLimit: UInt64
  ) throws(ImageError) {
    let path = session.path
    let record = try SessionRecord.read(from: session)
    guard record.outcome != .complete, record.outcome != .completeOverBudget else {
      throw ImageError(.session, file: path, "the dump that is there is complete")
    }
    let rounds = try Self.completeRounds(of: session)
    var admission = RoundAdmission()
    try admission.resume(after: rounds, pid: record.target.pid, in: session)
    self.init(into: session, from: subject, sync: sync, byteLimit: byteLimit)
    self.admission = admission
    self.rounds = rounds
    outcome = nil
  }

  /// The complete rounds, oldest first. Others are removed.
  private static func completeRounds(of session: borrowing Directory) throws(ImageError)
    -> [String]
  {
    let names = try onFile(session.path) { () throws(KernelError) in try session.names() }
    for name in names where name.hasSuffix(ImageFormat.partialSuffix) {
      guard RoundName(String(name.dropLast(ImageFormat.partialSuffix.count))) != nil,
        let partial = try? session.directory(name)
      else { continue }
      for file in (try? partial.names()) ?? [] { try? partial.removeFile(file) }
      try? session.removeDirectory(name)
    }
    var rounds: [String] = []
    while names.contains(RoundName.text(rounds.count + 1)) {
      rounds.append(RoundName.text(rounds.count + 1))
    }
    return rounds
  }

  /// What is there, for a greeting.
  var stored: StoredRounds { admission.stored(rounds.count) }

  /// Carries out one frame.
  ///
  /// - Throws: kind `.stream` if no memdump would send it, errors of the disk, and what is wrong with
  ///   a round that does not hold what it says. Nothing more is to be accepted then.
  mutating func accept(_ header: FrameHeader, _ payload: UnsafeRawBufferPointer)
    throws(ImageError) -> Answer
  {
    switch header.kind {
    case .alive: return .nothing
    case .beginRound: try beginRound(payload)
    case .beginFile: try beginFile(header.slot, payload)
    case .data: try file(in: header.slot).append(try counted(payload))
    case .endFile: try endFile(header.slot, payload)
    case .dropRound:
      guard round != nil else { throw refused("no round is under way") }
      round = nil
    case .commitRound:
      try commitRound()
      return .acknowledge(rounds: rounds.count)
    case .end:
      guard round == nil, sessionFile == nil else { throw refused("the end within a round") }
      return .end(rounds: rounds.count)
    default: throw refused("a frame that is not the sender's")
    }
    return .nothing
  }

  /// Gives up the round that is under way, and removes it.
  mutating func abandonRound() {
    round = nil
    sessionFile = nil
    try? session.removeFile(SessionRecord.temporaryName)
  }

  private func refused(_ message: String) -> ImageError {
    ImageError(.stream, file: subject, message)
  }

  private mutating func counted(_ payload: UnsafeRawBufferPointer) throws(ImageError)
    -> UnsafeRawBufferPointer
  {
    bytesStored += UInt64(payload.count)
    guard bytesStored <= byteLimit else {
      throw ImageError(.limit, file: subject, "more than the \(byteLimit) bytes that are allowed")
    }
    return payload
  }

  private mutating func beginRound(_ payload: UnsafeRawBufferPointer) throws(ImageError) {
    guard round == nil, sessionFile == nil else { throw refused("a round within another") }
    guard rounds.count < WireFormat.roundLimit else { throw refused("too many rounds") }
    guard payload.words == [UInt64(rounds.count) + 1] else {
      throw refused("round \(rounds.count + 1) is next, and another one came")
    }
    round = try IncomingRound(
      RoundName.text(rounds.count + 1), parent: rounds.last, in: session)
  }

  private mutating func beginFile(_ slot: UInt8, _ payload: UnsafeRawBufferPointer)
    throws(ImageError)
  {
    guard payload.count <= 64 else { throw refused("a file's name is too long") }
    let name = String(decoding: payload, as: UTF8.self)
    if let round {
      guard let limit = WireName.limit(inRound: name) else {
        throw refused("no file of a round is called \(payload.printable)")
      }
      try round.begin(name, slot: slot, limit: limit, sync: sync, subject: subject)
    } else {
      guard name == ImageFormat.sessionName, sessionFile == nil, slot == 0 else {
        throw refused("no file of a session is called \(payload.printable)")
      }
      try? session.removeFile(SessionRecord.temporaryName)
      sessionFile = try IncomingFile(
        SessionRecord.temporaryName, in: session, limit: WireFormat.smallLimit, sync: sync)
    }
  }

  private func file(in slot: UInt8) throws(ImageError) -> IncomingFile {
    if let file = round == nil ? (slot == 0 ? sessionFile : nil) : round?.files[slot] {
      return file
    }
    throw refused("there is no file in slot \(slot)")
  }

  private mutating func endFile(_ slot: UInt8, _ payload: UnsafeRawBufferPointer)
    throws(ImageError)
  {
    guard let words = payload.words, words.count == 3 else { throw refused("a file's odd end") }
    let expected = FileDigest(
      name: "", byteCount: words[0], digest: Digest128(high: words[1], low: words[2]))
    try file(in: slot).finish(expected, sync: sync)
    if let round {
      round.files[slot] = nil
    } else {
      sessionFile = nil
      try takeSessionRecord()
    }
  }

  private mutating func takeSessionRecord() throws(ImageError) {
    let record = try SessionRecord.read(SessionRecord.temporaryName, from: session)
    guard record.rounds == rounds else {
      throw refused("the session names other rounds than those that came")
    }
    try admission.check(session: record, from: subject)
    try SessionRecord.publish(in: session, sync: sync)
    outcome = record.outcome
  }

  private mutating func commitRound() throws(ImageError) {
    guard let round = round.take() else { throw refused("no round is under way") }
    guard round.files.isEmpty else { throw refused("the round has files without end") }
    try admission.admit(round, index: rounds.count + 1, in: session)
    try round.publish(sync: sync)
    rounds.append(round.name)
    try SessionLinks.pointLatest(to: round.name, in: session)
  }
}
