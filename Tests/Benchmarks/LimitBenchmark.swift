internal import CLZ4
internal import Glibc
internal import Images
internal import Kernel
internal import Synchronization

/// What reading and LZ4 allow, written as simply as possible: no order, no images, no digests.
struct LimitBenchmark {
  private static let piecePages: UInt64 = 256

  /// How LZ4 is used.
  struct Packing {
    let name: String
    let blockBytes: Int
    let acceleration: CInt

    /// CRIU's blocks of 256 KiB, and LZ4's own acceleration.
    static let likeCRIU = Packing(
      name: "", blockBytes: 64 * Int(pageBytes), acceleration: 1)
    static let ours = Packing(
      name: "-ours", blockBytes: PageCompression.defaultPagesPerBlock * Int(pageBytes),
      acceleration: CInt(PageCompression.defaultAcceleration))

    /// Stored bytes of `input`, in blocks, with the rule of 7/8 that images follow.
    ///
    /// - Parameter keepsAll: whether `scratch`, as long as `input`, is to have all of them.
    func lz4(
      _ input: UnsafeRawBufferPointer, _ scratch: UnsafeMutablePointer<CChar>, keepsAll: Bool
    ) -> Int {
      guard let base = input.baseAddress else { return 0 }
      var stored = 0
      for offset in stride(from: 0, to: input.count, by: blockBytes) {
        let count = min(blockBytes, input.count - offset)
        let target = keepsAll ? scratch + stored : scratch
        let size = LZ4_compress_fast(
          (base + offset).assumingMemoryBound(to: CChar.self), target, CInt(count),
          CInt(count / 8 * 7 - 1), acceleration)
        if size <= 0, keepsAll { memcpy(target, base + offset, count) }
        stored += size > 0 ? Int(size) : count
      }
      return stored
    }
  }

  private let packing: Packing

  init(_ packing: Packing) { self.packing = packing }

  struct Result: Encodable {
    let benchmark: String
    let threads: Int
    let bytesIn: Int
    /// Of the last repetition; 0 where nothing is compressed.
    let bytesOut: Int
    let gbPerSecond: Double
    let nanoseconds: Double
    let samples: Samples
  }

  /// Reading alone, by one thread.
  static func read(_ pid: Int32, _ repetitions: Int) throws -> Result {
    let target = try TargetMemory(pid: pid)
    let pieces = try target.pieces(pageLimit: piecePages)
    let memory = ProcessMemory(file: try target.open("mem"))
    let buffer = try AnonymousMemory(byteCount: Int(piecePages * pageBytes))
    buffer.populate(first: buffer.byteCount)
    var samples = Samples()
    for _ in 0..<repetitions {
      let cost = try measure {
        for piece in pieces {
          let bytes = buffer.bytes(at: 0, count: Int(piece.byteCount))
          _ = try memory.readPages(at: piece.start, into: bytes)
        }
      }
      samples.add(Double(cost.nanoseconds))
    }
    return result("read", threads: 1, pieces, bytesOut: 0, samples)
  }

  /// LZ4 alone, of bytes that are here already: at most 1 GiB of them.
  func compress(_ pid: Int32, _ repetitions: Int) throws -> Result {
    let target = try TargetMemory(pid: pid)
    let pieces = Array(try target.pieces(pageLimit: Self.piecePages).prefix(1024))
    let bytes = pieces.reduce(0) { $0 + Int($1.byteCount) }
    let memory = ProcessMemory(file: try target.open("mem"))
    let copy = Copy(try AnonymousMemory(byteCount: bytes))
    var offset = 0
    for piece in pieces {
      let count = Int(piece.byteCount)
      _ = try memory.readPages(at: piece.start, into: copy.memory.bytes(at: offset, count: count))
      offset += count
    }
    return try onAllCores("lz4", pieces, repetitions) { (_, offset, count) in
      UnsafeRawBufferPointer(copy.memory.bytes(at: offset, count: count))
    }
  }

  /// Each core reads a piece and compresses it.
  ///
  /// - Parameter stores: whether each core then writes what it has to a file of its own in memory:
  ///   what the kernel takes for images on tmpfs comes on top then.
  func readAndCompress(_ pid: Int32, _ repetitions: Int, stores: Bool = false) throws -> Result {
    let target = try TargetMemory(pid: pid)
    let pieces = try target.pieces(pageLimit: Self.piecePages)
    let buffers = Copy(
      try AnonymousMemory(byteCount: Processors.allowedCount * Int(Self.piecePages * pageBytes)))
    buffers.memory.populate(first: buffers.memory.byteCount)
    let shared = SharedMemory(ProcessMemory(file: try target.open("mem")))
    let starts = pieces.map(\.start)
    return try onAllCores(
      stores ? "store" : "limit", pieces, repetitions, stores: stores
    ) { (worker, offset, count) in
      let place = worker.index * Int(Self.piecePages * pageBytes)
      let bytes = buffers.memory.bytes(at: place, count: count)
      _ = try? shared.memory.readPages(at: starts[worker.piece], into: bytes)
      return UnsafeRawBufferPointer(bytes)
    }
  }

  /// One repetition's state that all workers share.
  private final class Progress: Sendable {
    let next = Atomic<Int>(0)
    let bytesOut = Atomic<Int>(0)
  }

  private final class Copy: Sendable {
    let memory: AnonymousMemory
    init(_ memory: consuming AnonymousMemory) { self.memory = memory }
  }

  private final class SharedMemory: Sendable {
    let memory: ProcessMemory
    init(_ memory: consuming ProcessMemory) { self.memory = memory }
  }

  /// Which thread asks for which piece's bytes.
  private struct Worker {
    let index: Int
    let piece: Int
  }

  private func onAllCores(
    _ name: String, _ pieces: [PageRange], _ repetitions: Int, stores: Bool = false,
    bytes: @escaping @Sendable (Worker, Int, Int) -> UnsafeRawBufferPointer
  ) throws -> Result {
    var offsets: [Int] = []
    var total = 0
    for piece in pieces {
      offsets.append(total)
      total += Int(piece.byteCount)
    }
    let packing = packing
    let (places, lengths) = (offsets, pieces.map { Int($0.byteCount) })
    let threads = Processors.allowedCount
    var samples = Samples()
    var bytesOut = 0
    for _ in 0..<repetitions {
      let progress = Progress()
      let cost = try measure {
        var workers = WorkerThreads()
        for index in 0..<threads {
          try workers.start {
            let file = stores ? try? File.anonymous(name: name) : nil
            let scratch = UnsafeMutablePointer<CChar>.allocate(
              capacity: Int(Self.piecePages * pageBytes))
            defer { scratch.deallocate() }
            while true {
              let piece = progress.next.add(1, ordering: .relaxed).oldValue
              if piece >= lengths.count { return }
              let input = bytes(Worker(index: index, piece: piece), places[piece], lengths[piece])
              let stored = packing.lz4(input, scratch, keepsAll: stores)
              if stores { try? file?.write(UnsafeRawBufferPointer(start: scratch, count: stored)) }
              progress.bytesOut.add(stored, ordering: .relaxed)
            }
          }
        }
        workers.join()
      }
      samples.add(Double(cost.nanoseconds))
      bytesOut = progress.bytesOut.load(ordering: .relaxed)
    }
    return Self.result(name + packing.name, threads: threads, pieces, bytesOut: bytesOut, samples)
  }

  private static func result(
    _ name: String, threads: Int, _ pieces: [PageRange], bytesOut: Int, _ samples: Samples
  ) -> Result {
    let bytes = pieces.reduce(0) { $0 + Int($1.byteCount) }
    return Result(
      benchmark: name, threads: threads, bytesIn: bytes, bytesOut: bytesOut,
      gbPerSecond: Double(bytes) / max(samples.median, 1), nanoseconds: samples.median,
      samples: samples)
  }
}

/// Threads that are joined together; an array cannot hold what cannot be copied.
private struct WorkerThreads: ~Copyable {
  private final class Box {
    var thread: OSThread?
    init(_ thread: consuming OSThread) { self.thread = consume thread }
  }
  private var boxes: [Box] = []

  mutating func start(_ body: @escaping @Sendable () -> Void) throws(KernelError) {
    boxes.append(Box(try OSThread(name: "limit", body)))
  }

  func join() {
    for box in boxes { box.thread.take()?.join() }
  }
}

/// Memory to memory, one thread: what a freeze's copy could reach at most.
enum CopyBenchmark {
  private static let byteCount = 256 << 20

  struct Result: Encodable {
    let benchmark = "memcpy"
    let gbPerSecond: Double
    let samples: Samples
  }

  static func run(_ repetitions: Int) throws -> Result {
    let source = try AnonymousMemory(byteCount: byteCount)
    let destination = try AnonymousMemory(byteCount: byteCount)
    source.populate(first: byteCount)
    destination.populate(first: byteCount)
    let from = UnsafeRawBufferPointer(source.bytes(at: 0, count: byteCount))
    let to = destination.bytes(at: 0, count: byteCount)
    var samples = Samples()
    for _ in 0..<repetitions {
      samples.add(measure { to.copyMemory(from: from) }.gigabytesPerSecond(byteCount))
    }
    return Result(gbPerSecond: samples.median, samples: samples)
  }
}
