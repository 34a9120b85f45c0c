import Foundation
import Images
import Kernel
import TestSupport
import Testing

@testable import Predump

@Suite("Chunks on their way to the images") struct ChunkPipelineTests {
  private static let runPages = 200

  @Test(
    "planned and filled ones get through the least memory, and are stored as one thread stores them",
    arguments: [2, 3, 7])
  func anyNumberOfThreads(encoders: Int) throws {
    let scratch = try TemporaryDirectory()
    let memory = try SelfMemory(pages: 64 * Self.runPages)
    let alone = try store(memory, encoders: 1, in: scratch, "alone", sync: false)
    // The second round of the same threads: they have buffers from the first.
    let together = try store(memory, encoders: encoders, in: scratch, "together", sync: true)
    #expect(alone == together)
    for name in ["pages-1.img", "pagemap-1.img"] {
      let bytes = try ["alone", "together"].map {
        try Data(contentsOf: URL(fileURLWithPath: scratch.file("\($0)/\(name)")))
      }
      #expect(bytes[0] == bytes[1] && !bytes[0].isEmpty, "\(name)")
    }
  }

  /// Two rounds: one is dropped, the other one committed. Runs are in turn planned and put in at once.
  private func store(
    _ memory: SelfMemory, encoders: Int, in scratch: TemporaryDirectory, _ name: String, sync: Bool
  ) throws -> RoundTotals {
    let directory = try Directory.open(scratch.path, followSymlink: false)
    let compression = PageCompression.lz4(pagesPerBlock: 16, acceleration: 1)
    let pipeline = try ChunkPipeline(
      compression: compression, encoders: encoders, yields: false,
      memoryBytes: ChunkPipeline.leastMemory(compression: compression, encoders: encoders))
    for isKept in [false, true] {
      pipeline.begin(
        try RoundWriter(
          in: directory, name: name, pid: 1, parentName: nil, compression: compression, sync: sync))
      let reader = RoundReader(
        .memory(SharedProcessMemory(ProcessMemory(file: try ThisThread.open("mem")))),
        StreamHistory(digests: try PageDigests(slotCount: 64)))
      var copier = RoundCopier(pipeline: pipeline, cancellation: nil)
      copier.begin(reader)
      for (index, run) in memory.runs(of: Self.runPages).enumerated() {
        if index % 4 < 2 {
          copier.flush()
          try copier.plan(run, flags: .present)
          copier.flush()
        } else {
          // Of chunks that come filled nothing is planned: they have a reader that reads nothing.
          copier.begin(RoundReader(nil, StreamHistory(digests: try PageDigests(slotCount: 64))))
          _ = try copier.store(run, flags: .present) { (address, buffer) throws(KernelError) in
            memory.copy(address, into: buffer)
            return .pages(buffer.count / Int(pageBytes))
          }
          copier.begin(reader)
        }
      }
      copier.flush()
      guard let writer = try pipeline.end() else { break }
      if isKept {
        return try writer.commit(
          RoundDescription(
            index: 1, kind: .live,
            target: TargetIdentity(pid: 1, startTicks: 1, bootID: "", command: "test"),
            addressSpace: AddressSpace(), statistics: RoundStatistics(), uptimeMicroseconds: 1,
            startedAt: 1))
      }
    }
    throw CancellationError()
  }
}

/// Memory of this process, some of it zeros, with words that repeat and words that do not.
private final class SelfMemory {
  private let bytes: UnsafeMutableRawBufferPointer

  init(pages: Int) throws {
    bytes = .allocate(byteCount: pages * Int(pageBytes), alignment: Int(pageBytes))
    var random = SeededRandom(seed: 11)
    for page in 0..<pages {
      let isNoise = random.next() % 3 == 0
      for word in 0..<512 {
        let value = isNoise ? random.next() : page % 5 == 0 ? 0 : UInt64(page)
        bytes.storeBytes(of: value, toByteOffset: page * 4096 + word * 8, as: UInt64.self)
      }
    }
  }

  deinit { bytes.deallocate() }

  func runs(of pages: Int) -> [PageRange] {
    let start = UInt64(UInt(bitPattern: bytes.baseAddress))
    let length = pages * Int(pageBytes)
    return stride(from: 0, to: bytes.count, by: length).map {
      PageRange(start: start + UInt64($0), end: start + UInt64($0 + length))
    }
  }

  func copy(_ address: UInt64, into buffer: UnsafeMutableRawBufferPointer) {
    let offset = Int(address - UInt64(UInt(bitPattern: bytes.baseAddress)))
    buffer.copyMemory(
      from: UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + buffer.count)]))
  }
}
