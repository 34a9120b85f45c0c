internal import Glibc
internal import Images
internal import Kernel
internal import Predump

/// Has CRIU dump everything that is not memory of a process that memdump stopped.
///
/// Between `init` and `finish` a CRIU has been started and has touched nothing: what it takes to
/// start is not taken from the time that the process stands still.
public struct StateDump: ~Copyable {
  static let logName = "criu-dump.log"

  private let options: StateDumpOptions
  private let omission: MemoryOmission
  private let criu: ChildProcess
  private let gate: ActionGate
  private let capture: ImageCapture?
  private let parent: AssumedParent?
  private let place: StateDirectory

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
  /// - Throws: `MigrationError`. The process runs on then, except that nothing was done to it after
  ///   `.notStopped`, or if CRIU could not be started or be told to leave memory out this way. If memdump is killed, CRIU gives up and the process runs on too.
  public static func run(_ options: StateDumpOptions) throws(MigrationError) -> StateDumpSummary {
    let pid: Int32
    let includesDescendants: Bool
    do throws(ImageError) {
      let record = try ImageChain(options.directory).topRecord()
      (pid, includesDescendants) = (record.pid, record.includesDescendants)
    } catch { throw .images(error) }
    return try StateDump(options, of: pid, includesDescendants: includesDescendants).finish()
  }

  /// Starts CRIU and has it wait. The session's directory must exist, its rounds need not.
  ///
  /// - Parameters:
  ///   - pid: whom it will dump.
  ///   - includesDescendants: whether the rounds have the memory of the process's descendants.
  public init(_ options: StateDumpOptions, of pid: Int32, includesDescendants: Bool)
    throws(MigrationError)
  {
    do {
      let omission = try options.omission.settled(for: pid).chosen(
        for: pid, includesDescendants: includesDescendants)
      let place = try StateDirectory(options.directory)
      let capture = try omission.capture(in: place.directory)
      let parent = try omission.parent(in: place.directory)
      let gate = try ActionGate([.preDump, .postDump], in: place.directory)
      // The page server that `--lazy-pages` ends in sees a client that has left, and ends too.
      let nobody = try ConnectedSocket.ended()
      let criu = try options.criu.start(
        Self.arguments(options, pid, omission), directory: place.directory.descriptor.number,
        input: nobody.number, output: .discarded)
      self.criu = criu
      self.gate = gate
      self.place = place
      self.capture = capture
      self.parent = parent
      self.omission = omission
      self.options = options
    } catch { throw MigrationError(error) }
  }

  /// Dumps, once the last round has left the process stopped. As `run`.
  public consuming func finish() throws(MigrationError) -> StateDumpSummary {
    let options = options
    do {
      var state: StateImages? = nil
      var processes: [StoppedProcess] = []
      var failure: (any Error)?
      do {
        let images = try StateImages(options.directory, in: place)
        processes = try images.targets.map { try StoppedProcess($0) }
        state = consume images
      } catch { failure = error }
      if let failure {
        Self.stop(criu, gate)
        throw failure
      }
      let watch = try ProcessGuard(processes.map { $0.process.pid })
      var dump = Running(
        options: options, omission: omission, gate: gate, capture: capture, parent: parent,
        processes: processes)
      let result: Result<StateDumpSummary, MigrationError>
      do { result = .success(try dump.run(state.take(), criu)) } catch {
        result = .failure(MigrationError(error))
      }
      var goesOn = options.fate == .running
      if case .failure = result { goesOn = true }
      // CRIU has put back the stops that it found.
      if goesOn { for stopped in processes { try? stopped.process.send(signal: SIGCONT) } }
      try watch.dismiss()
      return try result.get()
    } catch { throw MigrationError(error) }
  }

  /// Ends CRIU, which has touched nothing.
  public consuming func cancel() { Self.stop(criu, gate) }

  private static func stop(_ criu: consuming ChildProcess, _ gate: borrowing ActionGate) {
    try? gate.answer(false)
    _ = try? CRIUProgram.wait(criu)
  }

  private static func arguments(
    _ options: StateDumpOptions, _ pid: Int32, _ omission: MemoryOmission
  ) -> [String] {
    var words = [
      "dump", "--tree", "\(pid)", "--images-dir", ".", "--work-dir", ".", "--log-file",
      "../\(logName)",
    ]
    words += omission.arguments
    words += ActionGate.arguments
    if !options.fate.endsProcess { words.append("--leave-running") }
    return words + options.arguments
  }

  /// A dump under way.
  private struct Running: ~Copyable {
    let options: StateDumpOptions
    let omission: MemoryOmission
    let gate: ActionGate
    var capture: ImageCapture?
    var parent: AssumedParent?
    let processes: [StoppedProcess]
    private var unpublished: StateImages?
    private var summary: StateDumpSummary
    private var declined: MigrationError?
    private var began: UInt64

    init(
      options: StateDumpOptions, omission: MemoryOmission, gate: consuming ActionGate,
      capture: consuming ImageCapture?, parent: consuming AssumedParent?,
      processes: [StoppedProcess]
    ) {
      summary = StateDumpSummary(
        directory: "", omission: omission, nanoseconds: 0, droppedBytes: 0, keptBytes: 0)
      unpublished = nil
      (declined, began) = (nil, MonotonicClock.now)
      self.options = options
      self.omission = omission
      self.gate = gate
      self.capture = capture
      self.parent = parent
      self.processes = processes
    }

    mutating func run(_ state: consuming StateImages?, _ criu: consuming ChildProcess) throws
      -> StateDumpSummary
    {
      let session = try Directory.open(options.directory, followSymlink: true)
      summary.directory = session.join(StateImages.directoryName)
      unpublished = consume state
      // A failure on our side lets CRIU fail too: it is waited for before anything else is done.
      var failure: (any Error)?
      do { while try asks(criu.descriptor) { try decide() } } catch { failure = error }
      if failure != nil { try? gate.answer(false) }
      if let capture = capture.take() {
        summary.droppedBytes += capture.droppedBytes
        capture.close()
      }
      let end = try CRIUProgram.wait(criu)
      parent = nil
      if let declined { throw declined }
      if let failure { throw failure }
      // A lazy dump is over when its images are: CRIU then serves pages, which must fail or not for
      // want of privileges, and it has put everything back all the same.
      let isDone = unpublished == nil && (omission == .lazy || end == .exited(0))
      guard isDone else {
        throw MigrationError.criu(
          action: "dump", end: end.description, log: session.join(StateDump.logName),
          lines: CRIUProgram.complaints(in: session, log: StateDump.logName))
      }
      return summary
    }

    /// Whether CRIU asks something; false when it has ended.
    private mutating func asks(_ end: CInt) throws -> Bool {
      let others = [gate.descriptor, end]
      guard omission == .stream else { return try Readiness.wait(for: others).contains(0) }
      // All images are there: nothing more is asked.
      guard let images = self.unpublished.take() else { return false }
      let event = try capture?.run(into: images, others: others)
      unpublished = consume images
      return event == .other(0)
    }

    private mutating func decide() throws {
      guard try gate.question() == .postDump else {
        began = MonotonicClock.now
        try parent?.claimMemory(of: processes.map { $0.process.pid })
        return try gate.answer(true)
      }
      guard let images = unpublished.take() else { return try gate.answer(false) }
      try complete(images)
      summary.nanoseconds = MonotonicClock.now - began
      declined = askCommand()
      if declined == nil, omission == .lazy, options.fate.endsProcess {
        // Here, not by CRIU: nothing that CRIU still does or fails to do may let it run on. It only
        // fails for one that is gone.
        for stopped in processes { try? stopped.process.send(signal: SIGKILL) }
      }
      try gate.answer(declined == nil)
    }

    /// Makes the images refer to the rounds, and gives their directory its name.
    private mutating func complete(_ images: consuming StateImages) throws {
      parent = nil
      summary.droppedBytes += try images.referToRounds()
      for name in [ImageCapture.socketName, ActionGate.scriptName] {
        if try images.directory.names().contains(name) { try images.directory.removeFile(name) }
      }
      summary.keptBytes = try images.byteCount()
      try images.publish(sync: options.sync)
    }

    /// Asks the command what is to become of the process. Nil: nothing is against its end.
    private func askCommand() -> MigrationError? {
      guard case .decided(let command) = options.fate else { return nil }
      do {
        let shell = try ChildProcess("/bin/sh", ["-c", command], hasOwnGroup: false)
        let end = try shell.wait()
        return end == .exited(0) ? nil : .declined(command: command, end: end.description)
      } catch { return MigrationError(error) }
    }
  }
}
