internal import CCRIUImages
package import Kernel

/// What `memdump-session.img` says: who was dumped, when, how it ended, and which rounds count.
public struct SessionRecord: Sendable, Equatable {
  /// Its name in the session's directory.
  public static let fileName = ImageFormat.sessionName

  /// The program that wrote it, with its version.
  public var tool: String
  /// Who was dumped.
  public var target: TargetIdentity
  /// Seconds since 1970 when the session began.
  public var startedAt: UInt64
  /// Seconds since 1970 when this record was written.
  public var updatedAt: UInt64
  /// How the session ended, or that it has not.
  public var outcome: SessionOutcome
  /// Directory names of the committed rounds, oldest first. While the outcome is `running`, more
  /// rounds may have been committed since.
  public var rounds: [String]
  /// Every address space that was dumped, the target's first.
  public var members: [SessionMember] = []

  /// Describes a session.
  public init(
    tool: String, target: TargetIdentity, startedAt: UInt64, updatedAt: UInt64,
    outcome: SessionOutcome, rounds: [String]
  ) {
    self.tool = tool
    self.target = target
    self.startedAt = startedAt
    self.updatedAt = updatedAt
    self.outcome = outcome
    self.rounds = rounds
  }

  /// Writes the record to a temporary name in `directory` and renames it over the old one, so that
  /// a reader finds one or the other whole.
  ///
  /// - Parameter sync: whether the record is to survive a power cut once this returned.
  package func write(in directory: borrowing Directory, sync: Bool) throws(ImageError) {
    let temporary = ImageFormat.sessionName + ".new"
    // A dumper that died here left one; it was never the record.
    try? directory.removeFile(temporary)
    var writer = try RecordWriter(
      temporary, in: directory, magics: [ImageFormat.common, ImageFormat.sessionRecord])
    let scope = PackScope()
    var session = Memdump__Session()
    memdump__session__init(&session)
    session.format = ImageFormat.recordVersion
    session.tool = scope.string(tool)
    session.target = scope.place(target.message(scope))
    session.started_at = startedAt
    session.updated_at = updatedAt
    session.outcome = outcome.rawValue
    session.n_rounds = rounds.count
    session.rounds = scope.place(rounds.map { Optional(scope.string($0)) })
    session.n_members = members.count
    session.members = scope.place(members.map { Optional(scope.place($0.message(scope))) })
    var record = Memdump__Record()
    memdump__record__init(&record)
    record.session = scope.place(session)
    try withExtendedLifetime(scope) { () throws(ImageError) in try writer.append(record) }
    try writer.appendSeal()
    _ = try writer.finish(sync: sync)
    try onFile(directory.join(ImageFormat.sessionName)) { () throws(KernelError) in
      try directory.renameReplacing(temporary, to: ImageFormat.sessionName)
      if sync { try directory.sync() }
    }
  }

  /// Reads the record in `directory`.
  ///
  /// - Throws: `.missingFile` if there is none, and whatever is wrong with it.
  package static func read(from directory: borrowing Directory) throws(ImageError) -> SessionRecord
  {
    var reader = try RecordReader.open(
      ImageFormat.sessionName, in: directory,
      magics: [ImageFormat.common, ImageFormat.sessionRecord])
    guard try reader.advance(),
      let session = try reader.message(Memdump__Record.self).pointee.session
    else {
      throw reader.error(.record, "the record does not start with its session")
    }
    let record = try SessionRecord(session.pointee, reader)
    try reader.checkSeal()
    return record
  }

  private init(_ message: Memdump__Session, _ reader: borrowing RecordReader) throws(ImageError) {
    guard message.format == ImageFormat.recordVersion else {
      throw reader.error(.value, "record format \(message.format) is not known")
    }
    guard let outcome = SessionOutcome(rawValue: message.outcome) else {
      throw reader.error(.value, "outcome \(message.outcome) is not known")
    }
    tool = String(cString: message.tool)
    target = TargetIdentity(message.target.pointee)
    startedAt = message.started_at
    updatedAt = message.updated_at
    self.outcome = outcome
    rounds = UnsafeBufferPointer(start: message.rounds, count: message.n_rounds).map {
      $0.map { String(cString: $0) } ?? ""
    }
    members = UnsafeBufferPointer(start: message.members, count: message.n_members).compactMap {
      $0.map { SessionMember($0.pointee) }
    }
  }
}
