import Kernel
import Testing

@testable import Images

@Suite struct ChunkTests {
  /// Appends pages that are all `byte`.
  @discardableResult
  static func append(
    _ chunk: Chunk, _ start: UInt64, _ pages: Int, byte: UInt8 = 7, filling: Int? = nil
  ) throws -> Int {
    try chunk.appendPresent(start: start, pageLimit: pages, flags: .present) {
      buffer throws(KernelError) in
      let count = min(filling ?? .max, buffer.count / 4096)
      for index in 0..<(count * 4096) { buffer[index] = byte }
      return count
    }
  }

  @Test(
    "A long run is cut at a multiple of the block length", arguments: [1, 3, 64, 100, 256, 1024])
  func cuts(_ pagesPerBlock: Int) throws {
    let chunk = Chunk(compression: .lz4(pagesPerBlock: pagesPerBlock, acceleration: 1))
    let taken = try Self.append(chunk, 0, 100_000)
    #expect(taken % pagesPerBlock == 0 && taken > 0)
    #expect(chunk.freePages < pagesPerBlock)
  }

  @Test("What does not fit a whole block makes the chunk full, and changes nothing")
  func fullness() throws {
    let chunk = Chunk(compression: .lz4(pagesPerBlock: 64, acceleration: 1))
    let all = Chunk.standardPages
    #expect(chunk.isEmpty && !chunk.isFull && chunk.freePages == all)
    #expect(try Self.append(chunk, 0, all - 56) == all - 56)
    #expect(!chunk.isFull)
    #expect(try Self.append(chunk, 0x100_0000, 100) == 0)
    #expect(chunk.isFull && chunk.freePages == 56 && chunk.segments.count == 1)
    chunk.reset()
    #expect(!chunk.isFull && chunk.isEmpty)
    #expect(try Self.append(chunk, 0, all) == all)
    #expect(chunk.isFull)
  }

  @Test("A run of which nothing could be read takes no place")
  func nothingRead() throws {
    let chunk = Chunk(compression: .none)
    #expect(try Self.append(chunk, 0, 10, filling: 0) == 0)
    #expect(chunk.isEmpty && !chunk.isFull)
    #expect(try Self.append(chunk, 0, 10, filling: 4) == 4)
    #expect(chunk.segments.map(\.pageCount) == [4])
  }

  @Test("What was planned and cannot be read is left out, and told")
  func load() throws {
    let chunk = Chunk(compression: .lz4(pagesPerBlock: 4, acceleration: 1))
    let base: UInt64 = 0x10_0000
    #expect(chunk.appendPlanned(start: base, pageLimit: 10, flags: .present) == 10)
    #expect(chunk.appendParent(PageRange(start: base + 10 * pageBytes, pageCount: 3)))
    #expect(chunk.appendPlanned(start: base + 20 * pageBytes, pageLimit: 5, flags: .present) == 5)
    // Pages 2, 3 and 9 cannot be read, and the second run's address space is gone.
    let readable: Set<UInt64> = [0, 1, 4, 5, 6, 7, 8]
    var missing: [PageRange] = []
    try chunk.load(missing: { missing.append($0) }) { (address, buffer) throws(KernelError) in
      let first = (address - base) / pageBytes
      if first >= 20 { return .addressSpaceGone }
      var count = 0
      while count < buffer.count / 4096, readable.contains(first + UInt64(count)) { count += 1 }
      for index in 0..<(count * 4096) {
        buffer[index] = UInt8(truncatingIfNeeded: first + UInt64(index / 4096))
      }
      return .pages(count)
    }
    #expect(
      chunk.segments.map { [($0.start - base) / pageBytes, $0.pageCount] } == [
        [0, 2], [4, 5], [10, 3],
      ])
    #expect(
      missing.flatMap { range in (0..<range.pageCount).map { (range.start - base) / pageBytes + $0 }
      }
        == [2, 3, 9, 20, 21, 22, 23, 24])
    #expect(
      stride(from: 0, to: chunk.rawBytes.count, by: 4096).map { chunk.rawBytes[$0] }
        == [0, 1, 4, 5, 6, 7, 8])
    chunk.encode()
    #expect(chunk.blockCount == 3)
  }

  @Test("An error while reading leaves the chunk as it was")
  func readError() throws {
    let chunk = Chunk(compression: .none)
    #expect(throws: KernelError.self) {
      try chunk.appendPresent(start: 0, pageLimit: 1, flags: .present) { _ throws(KernelError) in
        _ = try Directory.open("/nowhere/at/all", followSymlink: false)
        return 1
      }
    }
    #expect(chunk.isEmpty && chunk.freePages == Chunk.standardPages)
  }

  @Test("Neighbouring runs of the parent are one segment, and the segments' number is limited")
  func parents() {
    let chunk = Chunk(compression: .none)
    #expect(chunk.appendParent(PageRange(start: 0, pageCount: 1 << 40)))
    #expect(chunk.appendParent(PageRange(start: 1 << 52, pageCount: 2)))
    #expect(chunk.segments.map(\.pageCount) == [1 << 40 + 2])
    var count = 1
    while chunk.appendParent(PageRange(start: 1 << 53 + UInt64(count) * 8192, pageCount: 1)) {
      count += 1
    }
    #expect(count == Chunk.segmentCapacity && chunk.isFull)
  }

  @Test("Blocks are zero, LZ4 or raw by CRIU's rule")
  func storedForms() throws {
    var generator = SeededGenerator(seed: 5)
    let noise = (0..<512).flatMap { _ in withUnsafeBytes(of: generator.next()) { [UInt8]($0) } }
    // (bytes of noise in the page, whether it is stored raw)
    for (count, isRaw) in [(4096, true), (3700, true), (3000, false), (8, false)] {
      let chunk = Chunk(compression: .lz4(pagesPerBlock: 1, acceleration: 1))
      try Self.append(chunk, 0, 1, byte: 0)
      _ = try chunk.appendPresent(start: 4096, pageLimit: 1, flags: .present) {
        buffer throws(KernelError) in
        for index in 0..<4096 { buffer[index] = index < count ? noise[index] : 0 }
        return 1
      }
      chunk.encode()
      #expect(chunk.blocks.count == 2)
      #expect(chunk.blocks[0].storedCount == 0)
      let stored = chunk.blocks[1].storedCount
      #expect((stored == 4096) == isRaw)
      #expect(isRaw || stored < 4096 / 8 * 7)
      #expect(chunk.storedBytes(chunk.blocks[1]).count == stored)
    }
  }

  @Test("Any byte that is not zero makes a page not zero")
  func zeroTest() {
    var page = [UInt8](repeating: 0, count: 4096)
    func isFoundZero() -> Bool {
      page.withUnsafeBytes { bytes in bytes.baseAddress.map { isZero($0, count: 4096) } ?? false }
    }
    #expect(isFoundZero())
    for index in 0..<4096 {
      page[index] = 1 << UInt8(index % 8)
      #expect(!isFoundZero())
      page[index] = 0
    }
  }
}
