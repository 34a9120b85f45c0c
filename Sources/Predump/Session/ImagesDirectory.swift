internal import Images
internal import Kernel
internal import SystemPackage

/// The directory of one dump: its rounds, the link to the newest one, and the session's record.
///
///     DIR/memdump-session.img   who, when, how it ended
///     DIR/round-001/            CRIU's layout; parent links go to the round before
///     DIR/latest -> round-001   the newest complete round
struct ImagesDirectory: ~Copyable {
  private static let latest = "latest"

  let directory: Directory
  private let wasCreated: Bool
  private let sync: Bool
  private(set) var record: SessionRecord

  /// Creates the directory at `path`, or takes over an empty one, and marks the session as running.
  init(path: String, target: TargetIdentity, sync: Bool) throws(PredumpError) {
    let now = WallClock.secondsSince1970
    let record = SessionRecord(
      tool: "memdump \(Predump.version)", target: target, startedAt: now, updatedAt: now,
      outcome: .running, rounds: [])
    let prepared = try Self.prepare(path)
    do throws(KernelError) {
      if try !prepared.directory.names().isEmpty {
        throw KernelError(call: "readdir", subject: path, errno: .directoryNotEmpty)
      }
    } catch { throw Self.unusable(path, error) }
    do throws(ImageError) {
      try record.write(in: prepared.directory, sync: sync)
    } catch {
      let unwritable = error.cause.map {
        [.readOnlyFileSystem, .permissionDenied].contains($0.errno)
      }
      if unwritable ?? false, let cause = error.cause { throw Self.unusable(path, cause) }
      throw PredumpError(error)
    }
    wasCreated = prepared.wasCreated
    directory = prepared.take()
    self.sync = sync
    self.record = record
  }

  /// The directory name of round `index`.
  static func roundName(_ index: Int) -> String {
    let digits = String(index)
    return "round-" + String(repeating: "0", count: max(0, 3 - digits.count)) + digits
  }

  /// Takes a committed round into the record and lets `latest` point at it.
  mutating func add(_ name: String, round: Int, _ members: [RoundMember]) throws(PredumpError) {
    record.rounds.append(name)
    record.add(members, of: round)
    let new = Self.latest + ".new"
    do throws(KernelError) {
      try? directory.removeFile(new)
      try directory.createSymlink(new, to: name)
      try directory.renameReplacing(new, to: Self.latest)
    } catch { throw PredumpError(ImageError(error, file: directory.join(Self.latest))) }
    try mark(.running)
  }

  /// Says how the session stands.
  mutating func mark(_ outcome: SessionOutcome) throws(PredumpError) {
    record.outcome = outcome
    record.updatedAt = WallClock.secondsSince1970
    do throws(ImageError) { try record.write(in: directory, sync: sync) } catch {
      throw PredumpError(error)
    }
  }

  /// Marks the session as ended by `error`, as well as that still goes; without any complete round
  /// nothing is left.
  mutating func abandon(after error: PredumpError) {
    if record.rounds.isEmpty {
      try? directory.removeFile(SessionRecord.fileName)
      if wasCreated {
        let (parent, name) = Self.split(directory.path)
        try? Directory.open(parent, followSymlink: true).removeDirectory(name)
      }
      return
    }
    let outcome: SessionOutcome =
      switch error {
      case .interrupted: .interrupted
      case .targetGone: .targetGone
      case .notConverged: .notConverged
      default: .failed
      }
    try? mark(outcome)
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

  private struct Prepared: ~Copyable {
    let directory: Directory
    let wasCreated: Bool

    consuming func take() -> Directory { directory }
  }

  private static func unusable(_ path: String, _ error: KernelError) -> PredumpError {
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
