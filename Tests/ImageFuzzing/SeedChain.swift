internal import Images
internal import Kernel

/// The smallest chain that has something of everything: two rounds of a process and of a shared
/// object; raw, compressed and zero blocks; a parent and a hole.
enum SeedChain {
  private static let target = TargetIdentity(
    pid: 7, startTicks: 99, bootID: "boot", command: "seed")

  /// Writes it to the directory at `path`.
  static func write(to path: String) throws {
    let session = try Directory.open(path, followSymlink: false)
    for index in 1...2 {
      var writer = try RoundWriter(
        in: session, name: "round-00\(index)", pid: target.pid,
        parentName: index > 1 ? "round-001" : nil, compression: compression, sync: false)
      try append([0x10000, 0x11000, 0x12000, 0x20000], isFirst: index == 1, to: &writer)
      try writer.beginSharedObject(id: 9)
      try append([0, 0x3000], isFirst: index == 1, to: &writer)
      var space = AddressSpace()
      space.vmas = [area(0x10000, pages: 4), area(0x20000, pages: 1)]
      space.auxiliaryVector = [6, 4096, 0, 0]
      _ = try writer.commit(
        RoundDescription(
          index: index, kind: index == 2 ? .frozen : .live, target: target, addressSpace: space,
          statistics: RoundStatistics(), uptimeMicroseconds: 5, startedAt: 6))
    }
    try SessionRecord(
      tool: "seed", target: target, startedAt: 1, updatedAt: 2, outcome: .complete,
      rounds: ["round-001", "round-002"]
    ).write(in: session, sync: false)
  }

  private static let compression = PageCompression.lz4(pagesPerBlock: 2, acceleration: 1)

  /// Stores every page the first time; then the first one only.
  private static func append(_ pages: [UInt64], isFirst: Bool, to writer: inout RoundWriter) throws
  {
    let chunk = Chunk(compression: compression)
    for (index, address) in pages.enumerated() {
      if !isFirst && index > 0 {
        _ = chunk.appendParent(PageRange(start: address, pageCount: 1))
        continue
      }
      _ = try chunk.appendPresent(start: address, pageLimit: 1, flags: [.present, .lazy]) {
        (buffer) throws(KernelError) in
        fill(buffer, kind: index, seed: UInt8(isFirst ? 1 : 2))
        return 1
      }
    }
    chunk.encode()
    try writer.append(chunk)
  }

  /// Zeros, repetition, or noise.
  private static func fill(_ buffer: UnsafeMutableRawBufferPointer, kind: Int, seed: UInt8) {
    var state = UInt32(seed)
    for offset in 0..<Int(pageBytes) {
      state = state &* 1_664_525 &+ 1_013_904_223
      buffer[offset] =
        switch kind {
        case 0: seed
        case 1: 0
        default: kind == 2 ? UInt8(state >> 24) : UInt8(offset & 7)
        }
    }
  }

  private static func area(_ start: UInt64, pages: UInt64) -> VMARecord {
    VMARecord(
      range: PageRange(start: start, pageCount: pages), fileOffset: 0, protection: 3,
      mapFlags: 0x22, status: 0x201, adviceBits: 0, sharedObjectID: 0, kind: .anonymous,
      treatment: .tracked, path: "")
  }
}
