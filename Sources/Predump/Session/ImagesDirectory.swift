internal import Images
internal import Kernel
internal import SystemPackage

/// The directory of one dump, here, at the other end of a link, or both: its rounds, the link to the
/// newest one, and the session's record.
///
///     DIR/memdump-session.img   who, when, how it ended
///     DIR/round-001/            CRIU's layout; parent links go to the round before
///     DIR/latest -> round-001   the newest complete round
struct ImagesDirectory: ~Copyable {
  let place: SessionPlace
  private let wasCreated: Bool
  private let sync: Bool
  private(set) var record: SessionRecord
  /// Whether the record is stored as it is here.
  private var isRecordWritten: Bool

  /// Creates the directory at `path`, or takes over an empty one, and marks the session as running,
  /// also at the other end of `link`.
  init(path: String?, link: ImageLink? = nil, target: TargetIdentity, sync: Bool)
    throws(PredumpError)
  {
    let now = WallClock.secondsSince1970
    let record = SessionRecord(
      tool: "memdump \(Predump.version)", target: target, startedAt: now, updatedAt: now,
      outcome: .running, rounds: [])
    let opened = try Self.open(path, link)
    do throws(ImageError) {
      try opened.place.write(record, sync: sync)
    } catch {
      let unwritable = error.cause.map {
        [.readOnlyFileSystem, .permissionDenied].contains($0.errno)
      }
      if unwritable ?? false, let cause = error.cause {
        throw Self.unusable(opened.place.path, cause)
      }
      throw PredumpError(error)
    }
    wasCreated = opened.wasCreated
    place = opened.take()
    self.sync = sync
    self.record = record
    isRecordWritten = true
  }

  private struct Opened: ~Copyable {
    let place: SessionPlace
    let wasCreated: Bool

    consuming func take() -> SessionPlace { place }
  }

  private static func open(_ path: String?, _ link: ImageLink?) throws(PredumpError) -> Opened {
    if let path {
      let prepared = try prepareEmpty(path)
      let wasCreated = prepared.wasCreated
      return Opened(place: SessionPlace(prepared.take(), link: link), wasCreated: wasCreated)
    }
    guard let link else {
      throw .imagesDirectory(path: "", reason: "there is none, and nowhere to send images to")
    }
    return Opened(place: SessionPlace(link: link), wasCreated: false)
  }

  /// Creates the directory at `path`, or opens it if it is empty.
  static func prepareEmpty(_ path: String) throws(PredumpError) -> Prepared {
    let prepared = try prepare(path)
    do throws(KernelError) {
      if try !prepared.directory.names().isEmpty {
        throw KernelError(call: "readdir", subject: path, errno: .directoryNotEmpty)
      }
    } catch { throw unusable(path, error) }
    return prepared
  }

  /// Creates the directory at `path`, or opens it if it is empty; or, to go on with the session in it,
  /// with what is there.
  static func prepare(_ path: String, goesOn: Bool) throws(PredumpError) -> Prepared {
    if goesOn { return try prepare(path) }
    return try prepareEmpty(path)
  }

  /// Whether there is a directory at `path` that holds a session.
  static func holdsSession(_ path: String) -> Bool {
    guard let directory = try? Directory.open(path, followSymlink: false) else { return false }
    return (try? SessionRecord.read(from: directory)) != nil
  }

  /// The directory name of round `index`.
  static func roundName(_ index: Int) -> String {
    let digits = String(index)
    return "round-" + String(repeating: "0", count: max(0, 3 - digits.count)) + digits
  }

  /// What is to be written once a round is published: the record with it, and `latest`.
  final class Entry: @unchecked Sendable {
    // Sendable: all of it is constant, and a place is written to by one thread at a time.
    let record: SessionRecord
    private let place: SessionPlace
    private let name: String
    private let sync: Bool

    fileprivate init(
      _ record: SessionRecord, _ place: consuming SessionPlace, _ name: String, sync: Bool
    ) {
      self.record = record
      self.place = place
      self.name = name
      self.sync = sync
    }

    func write() throws(ImageError) {
      try place.pointLatest(to: name)
      do throws(ImageError) { try place.write(record, sync: sync) } catch {
        // The round is published: that the link broke since, what is sent next will say.
        if error.kind != .link { throw error }
      }
    }
  }

  /// What round `round` is to be entered as.
  func entry(_ name: String, round: Int, _ members: [RoundMember]) -> Entry {
    var next = record
    next.rounds.append(name)
    next.add(members, of: round)
    next.outcome = .running
    next.updatedAt = WallClock.secondsSince1970
    return Entry(next, place.another(), name, sync: sync)
  }

  /// An entry was written.
  mutating func accept(_ entry: Entry) { record = entry.record }

  /// Forgets every round after `round`: the receiver does not have them. The session goes on.
  mutating func rollBack(to round: Int) {
    record.rollBack(to: round)
    record.outcome = .running
  }

  /// Says how the session stands.
  mutating func mark(_ outcome: SessionOutcome) throws(PredumpError) {
    record.outcome = outcome
    record.updatedAt = WallClock.secondsSince1970
    isRecordWritten = false
    do throws(ImageError) { try place.write(record, sync: sync) } catch {
      throw PredumpError(error)
    }
    isRecordWritten = true
  }

  /// Marks the session as ended, and takes leave of the receiver.
  mutating func finish(_ outcome: SessionOutcome) throws(PredumpError) {
    try mark(outcome)
    do throws(ImageError) { try place.link?.finish() } catch { throw PredumpError(error) }
  }

  /// Marks the session as ended by `error`, as well as that still goes; without any complete round
  /// nothing is left.
  ///
  /// One that was marked as complete stays so: its images are, whatever else failed then.
  mutating func abandon(after error: PredumpError) {
    place.link?.beginFarewell()
    if record.outcome.isComplete && isRecordWritten {
      try? place.link?.finish()
      return
    }
    if record.rounds.isEmpty {
      Self.removeEmpty(place.localPath, wasCreated: wasCreated)
      try? place.link?.finish()
      return
    }
    let outcome: SessionOutcome =
      switch error {
      case .interrupted: .interrupted
      case .targetGone: .targetGone
      case .notConverged: .notConverged
      default: .failed
      }
    // Here first: the receiver may be the very one that failed.
    do throws(PredumpError) { try mark(outcome) } catch {
      // What cannot be made to last is said all the same: the old record may call the dump complete.
      try? place.write(record, sync: false)
    }
    try? place.link?.finish()
  }

  /// Adds to a broken link what the receiver is known to have, if the rounds are nowhere else.
  func explain(_ error: PredumpError) -> PredumpError {
    guard case .link(let cause) = error, let link = place.link, link.hearsAnswers, !place.isLocal
    else { return error }
    let count = link.roundsAcknowledged
    return .link(
      ImageError(
        .link, file: cause.file,
        cause.message + "; the receiver has acknowledged \(count) round\(count == 1 ? "" : "s")",
        cause: cause.cause))
  }

  /// Removes the record of a session without rounds, and its directory if that was created for it.
  static func removeEmpty(_ path: String?, wasCreated: Bool) {
    guard let path else { return }
    try? Directory.open(path, followSymlink: false).removeFile(SessionRecord.fileName)
    if wasCreated {
      let (parent, name) = split(path)
      try? Directory.open(parent, followSymlink: true).removeDirectory(name)
    }
  }

  private static func prepare(_ path: String) throws(PredumpError) -> Prepared {
    do throws(KernelError) {
      return try Prepared(directory: Directory.open(path, followSymlink: false), wasCreated: false)
    } catch {
      guard error.errno == .noSuchFileOrDirectory else { throw unusable(path, error) }
    }
    let (parent, name) = split(path)
    do throws(KernelError) {
      let parent = try Directory.open(parent, followSymlink: true)
      return try Prepared(directory: parent.createDirectory(name), wasCreated: true)
    } catch { throw unusable(path, error) }
  }

  /// A directory that is there.
  struct Prepared: ~Copyable {
    let directory: Directory
    let wasCreated: Bool

    consuming func take() -> Directory { directory }
  }

  private static func unusable(_ path: String, _ error: KernelError) -> PredumpError {
    if [.noSpace, .diskQuotaExceeded].contains(error.errno) {
      return .outOfSpace(ImageError(error, file: path))
    }
    let reason =
      switch error.errno {
      case .notDirectory, .tooManySymbolicLinkLevels:
        "it is a symbolic link or not a directory; name a real directory"
      case .noSuchFileOrDirectory: "its parent directory does not exist; create that first"
      case .directoryNotEmpty: "it is not empty; name a new directory, or empty this one"
      case .readOnlyFileSystem: "its file system is read-only; choose another place"
      case .permissionDenied, .notPermitted: "it may not be written (\(error.errno.description))"
      default: "\(error.call): \(error.errno.description)"
      }
    return .imagesDirectory(path: path, reason: reason)
  }

  /// Parent directory and last component of `path`.
  static func split(_ path: String) -> (parent: String, name: String) {
    var trimmed = Substring(path)
    while trimmed.count > 1, trimmed.hasSuffix("/") { trimmed = trimmed.dropLast() }
    guard let slash = trimmed.lastIndex(of: "/") else { return (".", String(trimmed)) }
    let parent = trimmed[..<slash]
    return (parent.isEmpty ? "/" : String(parent), String(trimmed[trimmed.index(after: slash)...]))
  }
}
