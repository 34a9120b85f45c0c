internal import Glibc
internal import Images
internal import Kernel
internal import Predump

/// What becomes of the process once CRIU has dumped what is not memory.
public enum Fate: Sendable, Equatable {
  /// It stays stopped, with its connections unlocked.
  case stopped
  /// It runs on.
  case running
  /// It is ended, once the images are complete.
  case killed
  /// This shell command runs while the process is held and its connections are locked. If it
  /// succeeds the process is ended; else, or if memdump dies, it runs on.
  case decided(by: String)

  fileprivate var isGated: Bool {
    switch self {
    case .stopped, .running: false
    case .killed, .decided: true
    }
  }
}

/// What `StateDump.run` is to do.
public struct StateDumpOptions: Sendable {
  /// A dump's directory, whose last round left the process stopped.
  public var directory: String
  /// Which criu.
  public var criu = CRIUProgram()
  /// Further options for `criu dump`.
  public var arguments: [String] = []
  /// The process's fate.
  public var fate = Fate.stopped
  /// Whether the images survive a power cut before anything becomes of the process.
  public var sync = true

  /// The defaults, for `directory`.
  public init(directory: String) { self.directory = directory }
}

/// What a dump of CRIU's part came to.
public struct StateDumpSummary: Sendable, Equatable {
  /// Where CRIU's images are.
  public var directory: String
  /// From CRIU's start until its images were complete (ns).
  public var nanoseconds: UInt64
  /// Bytes of memory that CRIU read and nobody kept.
  public var droppedBytes: UInt64
  /// Bytes of all other images.
  public var keptBytes: UInt64
}

/// Has CRIU dump everything that is not memory of a process that memdump stopped.
public struct StateDump {
  private static let logName = "criu-dump.log"

  private let options: StateDumpOptions
  private let processes: [StoppedProcess]

  /// A process in an array.
  private final class StoppedProcess {
    let process: TargetProcess

    init(_ target: TargetIdentity) throws {
      let process = try LiveComparison.find(target.pid, dumpedAs: target)
      guard try process.stat().state == "T" else {
        throw MigrationError.notStopped(pid: process.pid)
      }
      self.process = process
    }
  }

  /// Dumps into `DIR/criu`. From memdump's last round to the end the process runs no instruction.
  ///
  /// - Throws: `MigrationError`. The process runs on then, except that after `.notStopped` nothing
  ///   was done to it. If memdump is killed, CRIU gives up and the process runs on too.
  public static func run(_ options: StateDumpOptions) throws(MigrationError) -> StateDumpSummary {
    do {
      let state = try StateImages(options.directory)
      let processes = try state.targets.map { try StoppedProcess($0) }
      return try StateDump(options: options, processes: processes).run(state)
    } catch { throw MigrationError(error) }
  }

  private func run(_ state: consuming StateImages) throws -> StateDumpSummary {
    let watch = try ProcessGuard(processes.map { $0.process.pid })
    let result: Result<StateDumpSummary, MigrationError>
    do { result = .success(try dump(state)) } catch { result = .failure(MigrationError(error)) }
    var goesOn = options.fate == .running
    if case .failure = result { goesOn = true }
    // CRIU has put back the stops that it found.
    if goesOn { for stopped in processes { try? stopped.process.send(signal: SIGCONT) } }
    try watch.dismiss()
    return try result.get()
  }

  private func dump(_ state: consuming StateImages) throws -> StateDumpSummary {
    var capture = try ImageCapture(in: state.directory)
    let gate = try DecisionGate(in: state.directory)
    let began = MonotonicClock.now
    let criu = try options.criu.start(
      arguments, directory: state.directory.descriptor.number, output: .discarded)
    let session = try Directory.open(options.directory, followSymlink: true)
    var declined: MigrationError?
    var summary = StateDumpSummary(
      directory: session.join(StateImages.directoryName), nanoseconds: 0, droppedBytes: 0,
      keptBytes: 0)
    var unpublished: StateImages? = consume state

    // A failure on our side lets CRIU fail too: it is waited for before anything else is done.
    var failure: (any Error)?
    do {
      var isOver = false
      while !isOver {
        guard let images = unpublished.take() else { break }
        switch try capture.run(into: images, others: [criu.descriptor, gate.descriptor]) {
        case .finished, .other(0):
          isOver = true
          unpublished = consume images
        case .other:
          try complete(images, sync: options.sync)
          summary.nanoseconds = MonotonicClock.now - began
          declined = decide()
          try gate.decide(endsProcess: declined == nil)
        }
      }
    } catch { failure = error }
    (summary.droppedBytes, summary.keptBytes) = (capture.droppedBytes, capture.keptBytes)
    if failure != nil { try? gate.decide(endsProcess: false) }
    capture.close()
    let end = try CRIUProgram.wait(criu)
    if let declined { throw declined }
    if let failure { throw failure }
    guard end == .exited(0) else {
      throw MigrationError.criu(
        action: "dump", end: end.description, log: session.join(Self.logName),
        lines: CRIUProgram.complaints(in: session, log: Self.logName))
    }
    if let images = unpublished.take() {
      try complete(images, sync: options.sync)
      summary.nanoseconds = MonotonicClock.now - began
    }
    return summary
  }

  private var arguments: [String] {
    var words = [
      "dump", "--tree", "\(processes[0].process.pid)", "--images-dir", ".", "--work-dir", ".",
      "--stream",
      "--log-file", "../\(Self.logName)",
    ]
    words +=
      options.fate.isGated
      ? ["--action-script", "./\(DecisionGate.scriptName)"] : ["--leave-running"]
    return words + options.arguments
  }

  /// Makes the images refer to the rounds, and gives their directory its name.
  private func complete(_ images: consuming StateImages, sync: Bool) throws {
    try images.referToRounds()
    for name in [ImageCapture.socketName, DecisionGate.scriptName] {
      try images.directory.removeFile(name)
    }
    try images.publish(sync: sync)
  }

  /// Asks the command what is to become of the process. Nil: it is to end.
  private func decide() -> MigrationError? {
    guard case .decided(let command) = options.fate else { return nil }
    do {
      let shell = try ChildProcess("/bin/sh", ["-c", command], hasOwnGroup: false)
      let end = try shell.wait()
      return end == .exited(0) ? nil : .declined(command: command, end: end.description)
    } catch { return MigrationError(error) }
  }
}
