import ImageFuzzing
import Kernel
import Testing

@testable import Images

@Suite struct ParentTests {
  /// Makes a chain of plain CRIU directories, a -> b -> c..., from their pagemaps.
  static func chain(_ rounds: [[[UInt8]]]) throws -> Scratch {
    let scratch = try Scratch()
    let names = ["a", "b", "c", "d"]
    for (level, entries) in rounds.enumerated() {
      try scratch.makeDirectory(names[level])
      try scratch.write("\(names[level])/pagemap-5.img", Wire.pagemap(entries))
      try scratch.write("\(names[level])/inventory.img", Wire.inventory(version: 2))
      if level + 1 < rounds.count {
        try scratch.link("\(names[level])/parent", to: "../\(names[level + 1])")
      }
    }
    return scratch
  }

  /// Fills the pages files: every page has its round's number.
  static func fill(_ scratch: Scratch, _ pageCounts: [Int]) throws {
    for (level, count) in pageCounts.enumerated() {
      try scratch.write(
        "\(["a", "b", "c", "d"][level])/pages-1.img",
        [UInt8](repeating: UInt8(level + 1), count: count * 4096))
    }
  }

  @Test("A run of the parent may straddle entries of several ancestors")
  func straddling() throws {
    let scratch = try Self.chain([
      [Wire.entry(0x1000, 9, flags: 1), Wire.entry(0x20000, 1, flags: 6)],
      [
        Wire.entry(0x0000, 2, flags: 6), Wire.entry(0x2000, 3, flags: 1),
        Wire.entry(0x5000, 1, flags: 4), Wire.entry(0x6000, 10, flags: 1),
      ],
      [Wire.entry(0x2000, 20, flags: 6)],
    ])
    try Self.fill(scratch, [1, 3, 20])
    let report = ChainVerifier.verify(scratch.path + "/a")
    #expect(report.verdict == .consistentNotRestorable, "\(report.findings)")
    var image = try ComposedImage(try ImageChain(scratch.path + "/a"), stream: .process(pid: 5))
    var owners: [UInt64: UInt8] = [:]
    try image.forEachRun { range, bytes in
      for page in 0..<Int(range.pageCount) {
        owners[range.start / 4096 + UInt64(page)] = bytes[page * 4096]
      }
    }
    #expect(owners == [1: 2, 2: 3, 3: 3, 4: 3, 5: 2, 6: 3, 7: 3, 8: 3, 9: 3, 32: 1])
  }

  /// Parents that do not hold page 0x3000 of a child's run 0x1000...0x4000.
  static let incomplete: [[[UInt8]]] = [
    [],
    [Wire.entry(0x1000, 2, flags: 6)],
    [Wire.entry(0x1000, 2, flags: 6), Wire.entry(0x4000, 1, flags: 6)],
    [Wire.entry(0x1000, 2, flags: 6), Wire.entry(0x3000, 1, flags: 2)],
    [Wire.entry(0x1000, 2, flags: 6), Wire.entry(0x3000, 1, flags: 1)],
  ]

  @Test("A page that is in no ancestor is missed", arguments: incomplete)
  func missing(_ parent: [[UInt8]]) throws {
    let scratch = try Self.chain([[Wire.entry(0x1000, 3, flags: 1)], parent])
    try Self.fill(
      scratch, [0, parent.last == Wire.entry(0x4000, 1, flags: 6) ? 3 : parent.isEmpty ? 0 : 2])
    let report = ChainVerifier.verify(scratch.path + "/a")
    #expect(report.verdict == .damaged)
    let finding = try #require(report.findings.first { $0.kind == .parentPage })
    #expect(finding.address == (parent.isEmpty ? 0x1000 : 0x3000))
    #expect(throws: ImageError.self) {
      var image = try ComposedImage(try ImageChain(scratch.path + "/a"), stream: .process(pid: 5))
      try image.forEachRun { _, _ in }
    }
  }
}
