internal import Glibc
internal import Images
internal import Kernel

/// CRIU's dump of processes that stand still, up to where they are to end or to go on.
///
/// Its images pass through a directory of this side's on their way to the destination. When this is
/// dropped undecided, CRIU takes everything back.
struct HeldDump: ~Copyable {
  static let logName = "criu-dump.log"

  private let criu: ChildProcess
  private let gate: ActionGate
  /// Nil if CRIU leaves memory out by itself.
  private var capture: ImageCapture?
  private var parent: AssumedParent?
  private let pids: Set<Int32>
  /// How memory is left out.
  let omission: MemoryOmission
  private let log: String

  /// Where an image waits until it was sent.
  private struct Passage: ~Copyable, CaptureSink {
    let directory: Directory
    let link: MoveLink
    /// Processes whose pages the rounds have.
    let pids: Set<Int32>

    borrowing func hasPages(ofPagemap name: String) -> Bool {
      StateImages.process(ofPagemap: name).map { pids.contains($0) } ?? false
    }

    borrowing func create(_ name: String) throws(ImageError) -> File {
      let path = directory.join(name)
      guard !name.isEmpty, !name.hasPrefix("."), !name.contains("/") else {
        throw ImageError(.value, file: path, "CRIU sends an image of an impossible name")
      }
      do throws(KernelError) { return File(try directory.createFile(name), path: path) } catch {
        throw ImageError(.misuse, file: path, "\(error)", cause: error)
      }
    }

    borrowing func complete(_ name: String) throws(ImageError) {
      try link.putFile(name, from: directory)
      try? directory.removeFile(name)
    }
  }

  /// Starts CRIU.
  ///
  /// - Parameters:
  ///   - root: the process whose tree it is to dump.
  ///   - includesDescendants: whether the rounds have the memory of its descendants.
  ///   - pids: the processes whose pages the rounds have. They stand still.
  ///   - omission: how memory is to be left out, settled.
  ///   - directory: of this migration's own; CRIU works there.
  init(
    of root: Int32, includesDescendants: Bool, pids: Set<Int32>, _ omission: MemoryOmission,
    with program: CRIUProgram, _ arguments: [String], in directory: borrowing Directory
  ) throws {
    let omission = try omission.chosen(for: root, includesDescendants: includesDescendants)
    let capture = try omission.capture(in: directory)
    let parent = try omission.parent(in: directory)
    try parent?.claimMemory(of: Array(pids))
    let gate = try ActionGate([.postDump], in: directory)
    // The page server that `--lazy-pages` ends in sees a client that has left, and ends too.
    let nobody = try ConnectedSocket.ended()
    let criu = try program.start(
      ["dump", "--tree", "\(root)", "--images-dir", ".", "--work-dir", "."]
        + omission.arguments + ["--log-file", Self.logName] + ActionGate.arguments + arguments,
      directory: directory.descriptor.number, input: nobody.number, output: .discarded)
    self.criu = criu
    self.gate = gate
    self.capture = consume capture
    self.parent = consume parent
    self.pids = pids
    self.omission = omission
    log = directory.join(Self.logName)
  }

  /// Sends CRIU's images, but for the pages that the rounds have, until CRIU holds the processes.
  ///
  /// - Returns: bytes of the images.
  /// - Throws: the failure of CRIU, of the link or of the disk; `finish` is still to be called.
  mutating func send(
    over link: MoveLink, from directory: borrowing Directory
  ) throws -> UInt64 {
    guard var capture = capture.take() else {
      guard try Readiness.wait(for: [gate.descriptor, criu.descriptor]).contains(0) else {
        throw HeldDumpError.criuEnded
      }
      parent = nil
      return try StateImages.send(from: directory, over: link, withoutPagesOf: pids)
    }
    let passage = Passage(
      directory: try directory.reopen(), link: link, pids: pids)
    var criuIsOver = false
    while !criuIsOver {
      // An end of the capture is no end of CRIU: it may ask later.
      switch try capture.run(into: passage, others: [criu.descriptor, gate.descriptor]) {
      case .other(1):
        let bytes = capture.keptBytes
        self.capture = consume capture
        return bytes
      case .other: criuIsOver = true
      case .finished:
        criuIsOver = try !Readiness.wait(for: [gate.descriptor, criu.descriptor]).contains(0)
        if !criuIsOver { return capture.keptBytes }
      }
    }
    throw HeldDumpError.criuEnded
  }

  /// CRIU's process id.
  var pid: Int32 { criu.pid }

  /// From now on this process's death decides nothing.
  func hold() throws(KernelError) { try gate.hold() }

  /// Lets CRIU end the processes, or take everything back, and waits for it. If it leaves memory out
  /// by itself it may leave them stopped instead of ending them.
  ///
  /// - Throws: `.criu` if it did not do what it was told.
  consuming func finish(endsProcesses: Bool, in directory: borrowing Directory)
    throws(MigrationError)
  {
    try? gate.answer(endsProcesses)
    capture = nil
    let end = try CRIUProgram.wait(criu)
    if endsProcesses, end == .exited(0) { return }
    throw MigrationError.criu(
      action: "dump", end: end.description, log: log,
      lines: CRIUProgram.complaints(in: directory, log: Self.logName))
  }

  /// Leaves CRIU holding the processes, for somebody else to decide.
  consuming func leave() {}
}

/// CRIU ended before it held the processes: its log says why.
enum HeldDumpError: Error { case criuEnded }
