internal import Glibc
internal import Images
public import Kernel
public import Predump

/// What became of the copy at the destination.
public enum MoveOutcome: Sendable, Equatable {
  /// It runs, under this number if that is known.
  case running(pid: Int32?)
  /// There is none.
  case aborted(String)
}

/// Asks a destination what became of a migration.
struct OutcomeQuestion {
  private static let connectMilliseconds: Int32 = 2_000
  private static let pauseNanoseconds: UInt64 = 300_000_000

  let destination: Endpoint
  let tls: TLSCredentials?
  let identity: MoveIdentity
  let isCancelled: @Sendable () -> Bool

  /// Asks until there is an answer; nil if there is none in time.
  func ask(forNanoseconds patience: UInt64) -> (outcome: MoveOutcome?, reason: String) {
    let deadline = MonotonicClock.now + patience
    var reason = "there was no time to ask"
    while MonotonicClock.now < deadline, !isCancelled() {
      do {
        if let outcome = try askOnce() { return (outcome, "") }
        reason = "who listens there knows nothing of it"
      } catch { reason = "\(error)" }
      MonotonicClock.pause(nanoseconds: Self.pauseNanoseconds)
    }
    return (nil, reason)
  }

  private func askOnce() throws -> MoveOutcome? {
    let isCancelled = isCancelled
    let link = try MoveLink(
      destination.connect(
        milliseconds: Self.connectMilliseconds, tls: TLSContext.reading(tls, isServer: false),
        isCancelled: isCancelled),
      patience: LinkPatience(silenceNanoseconds: 10_000_000_000, isCancelled: isCancelled))
    try link.put(.ask(identity))
    switch try link.take() {
    case .running(let pid):
      try? link.put(.settled)
      return .running(pid: pid)
    case .aborted(let text):
      try? link.put(.settled)
      return .aborted(text)
    case .unknown: return nil
    default: throw MigrationError.peer("\(link.subject) answers what was not asked")
    }
  }
}

/// Decides over processes that a migration left held, because the link broke when only the
/// destination knew the outcome.
public enum MoveResolution {
  /// What was done.
  public struct Summary: Sendable {
    /// The process.
    public var pid: Int32
    /// Where its copy is, or was to be.
    public var destination: String
    /// What was decided.
    public var outcome: MoveOutcome
  }

  /// Asks the destination, unless `outcome` says what is known, and lets the processes end or go on.
  ///
  /// - Parameters:
  ///   - tls: the certificates, if the destination takes them.
  ///   - patienceNanoseconds: how long to ask.
  /// - Throws: `MigrationError`: `.undecided` if there is no answer, and nothing was done then.
  public static func run(
    _ directory: String, outcome: MoveOutcome?, tls: TLSCredentials? = nil,
    patienceNanoseconds: UInt64, cancellation: Cancellation = Cancellation()
  ) throws(MigrationError) -> Summary {
    do {
      let place = try Directory.open(directory, followSymlink: false)
      let note = try MoveNote.read(from: place)
      if let author = try? TargetProcess(pid: note.author.pid), !author.hasExited,
        author.startTicks == note.author.startTicks
      {
        throw MigrationError.peer(
          "memdump \(note.author.pid) is still at work on this: wait for it, or end it first")
      }
      let known = try outcome ?? ask(note, tls, directory, patienceNanoseconds, cancellation)
      settle(note, known, place)
      try MoveDirectory.remove(directory)
      return Summary(
        pid: note.processes[0].pid, destination: note.destination, outcome: known)
    } catch { throw MigrationError(error) }
  }

  private static func ask(
    _ note: MoveNote, _ tls: TLSCredentials?, _ directory: String, _ patience: UInt64,
    _ cancellation: Cancellation
  ) throws -> MoveOutcome {
    guard let destination = Endpoint(note.destination) else {
      throw MigrationError.peer("\(note.destination) is no destination")
    }
    let answer = OutcomeQuestion(
      destination: destination, tls: tls, identity: note.identity,
      isCancelled: { cancellation.isCancelled }
    ).ask(forNanoseconds: patience)
    if let outcome = answer.outcome { return outcome }
    throw MigrationError.undecided(
      pid: note.processes[0].pid, destination: note.destination, directory: directory,
      reason: answer.reason)
  }

  private static func settle(
    _ note: MoveNote, _ outcome: MoveOutcome, _ place: borrowing Directory
  ) {
    let processes = HeldProcesses(named: note.processes)
    var runsThere = false
    if case .running = outcome {
      runsThere = true
      processes.kill()
    }
    // If CRIU is gone too, SIGSTOP holds them alone.
    if (try? ActionGate.answer(runsThere, in: place)) == true {
      processes.awaitRelease()
      // It writes to its directory up to its end.
      HeldProcesses(named: [note.holder]).awaitEnd()
    }
    switch outcome {
    case .running: processes.awaitEnd()
    case .aborted: processes.goOn()
    }
  }
}

/// The directory that the source works in: for CRIU, and for what outlives memdump.
enum MoveDirectory {
  /// Creates one in `parent`.
  static func create(in parent: String) throws(KernelError) -> Directory {
    let random = String(UInt64.random(in: .min ... .max), radix: 36)
    return try Directory.create("\(parent)/memdump-migrate-\(random)")
  }

  /// Removes it with all that is in it.
  static func remove(_ path: String) throws(KernelError) {
    let directory = try Directory.open(path, followSymlink: false)
    for name in try directory.names() { try directory.removeFile(name) }
    rmdir(path)
  }
}
