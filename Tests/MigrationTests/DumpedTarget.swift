import Foundation
import Images
import Kernel
import Migration
import Predump
import TestSupport
import Testing
import Tracee

/// A stamped process (see `Tests/Workloads/stamp.c`) that writes all the time, dumped in rounds and
/// left stopped. It can say whether all its memory is right.
final class DumpedTarget {
  static let criuPath = URL(
    fileURLWithPath: (ProcessInfo.processInfo.environment["MEMDUMP_CRIU_ROOT"] ?? ".build/criu")
      + "/bin/criu"
  ).path
  static var hasCRIU: Bool {
    if FileManager.default.isExecutableFile(atPath: criuPath) { return true }
    print("not run: there is no criu at \(criuPath); scripts/criu-root.sh fetches one")
    return false
  }

  /// The ways to leave memory out that this kernel has.
  static let ways: [MemoryOmission] = {
    if (try? SoftDirty.isTracked()) == true { return [.lazy, .softDirty, .stream] }
    print("not run: leaving memory out by soft-dirty tracking; scripts/kernels.sh does that")
    return [.lazy, .stream]
  }()
  /// The one that `automatic` takes of an untouched process.
  static var usualWay: MemoryOmission { ways.contains(.softDirty) ? .softDirty : .lazy }

  let directory: TemporaryDirectory
  let workload: Workload
  let pid: Int32
  let images: String
  private let log: String

  /// - Parameters:
  ///   - includesDescendants: whether its child is dumped in the same rounds.
  ///   - afterFirstRound: told the process's id and the images' directory, while the process runs.
  init(
    _ compression: PageCompression, pages: Int = 2048, includesDescendants: Bool = false,
    afterFirstRound: @escaping @Sendable (Int32, String) throws -> Void = { _, _ in }
  ) throws {
    directory = try TemporaryDirectory()
    log = directory.file("target.log")
    images = directory.file("images")
    workload = try Workload(
      "stamp",
      [
        "pages=\(pages)", "rate=5000", "threads=2", "drop=1", "moves=1", "detached=1", "log=\(log)",
        "lifetime=120",
      ])
    pid = workload.pid
    var options = PredumpOptions(pid: pid, imagesDirectory: images)
    options.compression = compression
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.maxRounds = 3
    options.leave = .stopped
    options.includesDescendants = includesDescendants
    let (pid, images) = (pid, images)
    let failure = Box<any Error>()
    _ = try Predump.run(options) { event in
      guard case .roundFinished(let round) = event, round.index == 1 else { return }
      do { try afterFirstRound(pid, images) } catch { failure.value = error }
    }
    if let error = failure.value { throw error }
  }

  /// One that criu has dumped the rest of, and ended.
  static func ended(_ compression: PageCompression, pages: Int = 2048) throws -> DumpedTarget {
    let target = try DumpedTarget(compression, pages: pages)
    var options = target.dumpOptions
    options.fate = .killed
    _ = try StateDump.run(options)
    return target
  }

  /// For `afterFirstRound`: the process forks, and both write on.
  static func fork(_ pid: Int32, _: String) throws {
    kill(pid, SIGUSR2)
    try #require(eventually { (try? ProcessTree.descendants(of: pid).count) == 1 })
  }

  deinit {
    for child in (try? ProcessTree.descendants(of: pid)) ?? [] { kill(child.pid, SIGKILL) }
    kill(pid, SIGKILL)
  }

  var state: Character? {
    let text = (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)) ?? ""
    return text.split(separator: ")").last?.dropFirst().first
  }

  var dumpOptions: StateDumpOptions {
    var options = StateDumpOptions(directory: images)
    options.criu = CRIUProgram(Self.criuPath)
    return options
  }

  var restoreOptions: RestoreOptions {
    var options = RestoreOptions(directory: images)
    options.criu = CRIUProgram(Self.criuPath)
    return options
  }

  /// Asks the process to look at all its memory; what it says.
  func answer() -> String? { answer(of: pid) }

  /// Asks one that has forked off.
  func answer(of pid: Int32) -> String? {
    let before = lines.count
    kill(pid, SIGUSR1)
    var answer: String?
    _ = eventually {
      answer = self.lines.dropFirst(before).first
      return answer != nil
    }
    return answer
  }

  /// Pages of the process, stopped, that are not what the chain says, but for the 32 bytes of a thread
  /// that the kernel writes when it puts the thread on a processor (rseq(2)).
  func differences() throws -> [UInt64] {
    let memory = try FileHandle(forReadingFrom: URL(fileURLWithPath: "/proc/\(pid)/mem"))
    var image = try ComposedImage(ImageChain(images), stream: .process(pid: pid))
    var different: [UInt64] = []
    var compared = 0
    try image.forEachRun { (range, bytes) throws in
      try memory.seek(toOffset: range.start)
      let found = try #require(try memory.read(upToCount: bytes.count))
      try #require(found.count == bytes.count)
      for page in 0..<(bytes.count / 4096) {
        let part = (page * 4096)..<((page + 1) * 4096)
        compared += 1
        if found[part] == Data(bytes[part]) { continue }
        let offsets = part.filter { found[$0] != bytes[$0] }
        let span = (offsets.last ?? 0) - (offsets.first ?? 0)
        if span >= 32 { different.append(range.start + UInt64(page * 4096)) }
      }
    }
    #expect(compared > 2048)
    return different
  }

  private var lines: [String] {
    ((try? String(contentsOfFile: log, encoding: .utf8)) ?? "").split(separator: "\n").map(
      String.init)
  }
}

/// Something that a round's event made, for after the rounds.
final class Box<Value: ~Copyable>: @unchecked Sendable {
  // Sendable: written during the rounds and read when they are over.
  var value: Value?
}
