// Inner loops and bare limits, each printed as one line of JSON. scripts/bench.sh puts them beside
// what memdump and its peers take; the malloc counts are there because inner loops must not allocate.
internal import Glibc
internal import Kernel

@main
enum Benchmarks {
  private static let usage = """
    usage: benchmarks COMMAND [REPETITIONS]
      scan PID     PAGEMAP_SCAN over the private anonymous memory: bare, and PagemapScanner
      frozen PID   the same for a freeze's scan: what is not as it was when it was protected
      still PID    the same, asking first if anything was written
      dirty PID    the same for a round's scan: tracks PID, finds and protects what was written
      read PID     reading what is populated through /proc/PID/mem, 1 MiB at a time
      lz4 PID      LZ4 as CRIU does it on all cores, read before the clock starts
      limit PID    reading and LZ4 on all cores at once: the limit of a full round
      store PID    the same, written to memory files: what the kernel takes for images on tmpfs too
      lz4-ours PID, limit-ours PID, store-ours PID  the same with memdump's blocks and acceleration
      attach PID   getting a userfaultfd of PID: in all, and how long a thread of it stands still
      freeze PID CGROUP  stopping all threads: by ptrace, and by the cgroup v2 freezer of CGROUP,
                   a directory; PID is moved into it, and must be alone there
      memcpy       copying memory to memory
      first-write  a write to a page that is write-protected for tracking
      encode       Chunk: digest, zero test and LZ4, one thread
      verify DIR   ChainVerifier over images

    """

  static func main() {
    let arguments = Array(CommandLine.arguments.dropFirst())
    guard let command = arguments.first else { fail(usage, code: 64) }
    do {
      switch command {
      case "memcpy": report(try CopyBenchmark.run(repetitions(arguments, at: 1)))
      case "first-write": report(try FirstWriteBenchmark.run(repetitions(arguments, at: 1)))
      case "encode": report(EncodeBenchmark.run(repetitions(arguments, at: 1)))
      case "verify":
        guard arguments.count > 1 else { fail(usage, code: 64) }
        report(VerifyBenchmark.run(arguments[1], repetitions(arguments, at: 2)))
      case "freeze":
        guard arguments.count > 2, let pid = Int32(arguments[1]) else { fail(usage, code: 64) }
        report(try FreezerBenchmark.run(pid, arguments[2], repetitions(arguments, at: 3)))
      default:
        guard arguments.count > 1, let pid = Int32(arguments[1]) else { fail(usage, code: 64) }
        try runOnTarget(command, pid, repetitions(arguments, at: 2))
      }
    } catch {
      fail("benchmarks: \(error)\n", code: 1)
    }
  }

  private static func runOnTarget(_ command: String, _ pid: Int32, _ repetitions: Int) throws {
    let suffix = "-ours"
    let isOurs = command.hasSuffix(suffix)
    let limit = LimitBenchmark(isOurs ? .ours : .likeCRIU)
    switch isOurs ? String(command.dropLast(suffix.count)) : command {
    case "scan": report(try ScanBenchmark.populated(pid, repetitions))
    case "frozen": report(try ScanBenchmark.frozen(pid, repetitions, asksIfStill: false))
    case "still": report(try ScanBenchmark.frozen(pid, repetitions, asksIfStill: true))
    case "dirty": report(try ScanBenchmark.dirty(pid, repetitions))
    case "read": report(try LimitBenchmark.read(pid, repetitions))
    case "lz4": report(try limit.compress(pid, repetitions))
    case "limit": report(try limit.readAndCompress(pid, repetitions))
    case "store": report(try limit.readAndCompress(pid, repetitions, stores: true))
    case "attach": report(try AttachBenchmark.run(pid, repetitions))
    default: fail(usage, code: 64)
    }
  }

  private static func repetitions(_ arguments: [String], at index: Int) -> Int {
    guard arguments.count > index else { return 5 }
    guard let count = Int(arguments[index]), count > 0 else { fail(usage, code: 64) }
    return count
  }

  private static func fail(_ message: String, code: CInt) -> Never {
    message.utf8.withContiguousStorageIfAvailable { _ = write(2, $0.baseAddress, $0.count) }
    exit(code)
  }
}
