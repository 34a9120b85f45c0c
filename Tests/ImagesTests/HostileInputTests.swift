import Foundation
import ImageFuzzing
import Testing

@testable import Images

@Suite struct HostileInputTests {
  /// A plain CRIU directory with one pagemap, and what the verifier must say of it.
  struct Case: Sendable, CustomTestStringConvertible {
    var name: String
    var pagemap: [UInt8]
    var pages = [UInt8](repeating: 1, count: 8192)
    var expected: DamageKind?
    var testDescription: String { name }
  }

  static let good = Wire.entry(0x1000, 2, flags: 6)

  static let cases: [Case] = [
    Case(name: "two good pages", pagemap: Wire.pagemap([good]), expected: nil),
    Case(
      name: "legacy: no flags, old page count",
      pagemap: Wire.pagemap([Wire.field(1, 0x1000) + Wire.field(2, 2)]), expected: nil),
    Case(
      name: "raw and zero blocks",
      pagemap: Wire.pagemap(
        [Wire.entry(0x1000, 3, flags: 4, Wire.blocks([4096, 0, 4096]))]), expected: nil),
    Case(name: "empty file", pagemap: [], expected: .truncated),
    Case(name: "half a magic", pagemap: [0x19, 0x43, 0x56, 0x54, 0x25], expected: .truncated),
    Case(
      name: "wrong magic", pagemap: Wire.image([0x5456_4319, 1], [Wire.field(1, 1)]),
      expected: .magic),
    Case(
      name: "no head", pagemap: Wire.image([0x5456_4319, 0x5608_4025], []), expected: .truncated),
    Case(
      name: "record of 4 GiB", pagemap: Wire.pagemap([good]) + [0xff, 0xff, 0xff, 0xff],
      expected: .limit),
    Case(
      name: "record of 16 MiB in a short file", pagemap: Wire.pagemap([good]) + Wire.word(1 << 24),
      expected: .truncated),
    Case(
      name: "half a length", pagemap: Wire.pagemap([good]) + [1, 0], expected: .truncated),
    Case(
      name: "garbage in a record", pagemap: Wire.pagemap([[0xff, 0xff, 0xff]]), expected: .message),
    Case(name: "empty record", pagemap: Wire.pagemap([[]]), expected: .message),
    Case(
      name: "unknown field", pagemap: Wire.pagemap([good + Wire.field(7, 1)]), expected: .message),
    Case(
      name: "address inside a page", pagemap: Wire.pagemap([Wire.entry(0x1001, 2, flags: 4)]),
      expected: .alignment),
    Case(
      name: "no pages", pagemap: Wire.pagemap([Wire.entry(0x1000, 0, flags: 4)]), expected: .value),
    Case(
      name: "two page counts",
      pagemap: Wire.pagemap(
        [Wire.field(1, 0x1000) + Wire.field(2, 3) + Wire.field(4, 4) + Wire.field(5, 2)]),
      expected: .value),
    Case(
      name: "page count that overflows",
      pagemap: Wire.pagemap([Wire.entry(0x1000, 1 << 52, flags: 1)]), expected: .alignment),
    Case(
      name: "pages over the end of the address space",
      pagemap: Wire.pagemap([Wire.entry(UInt64.max - 4095, 2, flags: 4)]), expected: .alignment),
    Case(
      name: "the whole address space present",
      pagemap: Wire.pagemap([Wire.entry(0x1000, (1 << 52) - 2, flags: 4)]), expected: .payloadSize),
    Case(
      name: "overlap",
      pagemap: Wire.pagemap(
        [Wire.entry(0x1000, 2, flags: 4), Wire.entry(0x2000, 1, flags: 1)]), expected: .order),
    Case(
      name: "descending",
      pagemap: Wire.pagemap(
        [Wire.entry(0x5000, 1, flags: 4), Wire.entry(0x2000, 1, flags: 4)]), expected: .order),
    Case(
      name: "present and parent", pagemap: Wire.pagemap([Wire.entry(0x1000, 2, flags: 5)]),
      expected: .flags),
    Case(
      name: "unknown flag", pagemap: Wire.pagemap([Wire.entry(0x1000, 2, flags: 0x14)]),
      expected: .flags),
    Case(
      name: "aligned without payload", pagemap: Wire.pagemap([Wire.entry(0x1000, 2, flags: 9)]),
      expected: .flags),
    Case(
      name: "blocks without payload",
      pagemap: Wire.pagemap([Wire.entry(0x1000, 1, flags: 1, Wire.blocks([0]))]), expected: .flags),
    Case(
      name: "lazy without payload", pagemap: Wire.pagemap([good, Wire.entry(0x9000, 2, flags: 2)]),
      expected: .lazyPage),
    Case(
      name: "parent without parent",
      pagemap: Wire.pagemap([good, Wire.entry(0x9000, 2, flags: 1)]),
      expected: .parentPage),
    Case(
      name: "legacy: in parent, without parent",
      pagemap: Wire.pagemap(
        [good, Wire.field(1, 0x9000) + Wire.field(2, 2) + Wire.field(3, 1)]), expected: .parentPage),
    Case(
      name: "too few blocks",
      pagemap: Wire.pagemap([Wire.entry(0x1000, 3, flags: 4, Wire.blocks([4096, 4096]))]),
      expected: .blocks),
    Case(
      name: "too many blocks",
      pagemap: Wire.pagemap([Wire.entry(0x1000, 1, flags: 4, Wire.blocks([4096, 4096]))]),
      expected: .blocks),
    Case(
      name: "no pages per block",
      pagemap: Wire.pagemap(
        [Wire.entry(0x1000, 1, flags: 4, Wire.blocks([4096], pagesPerBlock: 0))]),
      expected: .blocks),
    Case(
      name: "1025 pages per block",
      pagemap: Wire.pagemap(
        [Wire.entry(0x1000, 2, flags: 4, Wire.blocks([8192], pagesPerBlock: 1025))]),
      expected: .blocks),
    Case(
      name: "block longer than its pages",
      pagemap: Wire.pagemap([Wire.entry(0x1000, 2, flags: 4, Wire.blocks([4097, 4095]))]),
      expected: .blocks),
    Case(
      name: "short last block longer than its page",
      pagemap: Wire.pagemap(
        [Wire.entry(0x1000, 3, flags: 4, Wire.blocks([4096, 4097], pagesPerBlock: 2))]),
      expected: .blocks),
    Case(
      name: "wrong sum of blocks",
      pagemap: Wire.pagemap([
        Wire.entry(0x1000, 2, flags: 4, Wire.blocks([4096, 4096], total: 8191))
      ]),
      expected: .blocks),
    Case(
      name: "huge sum of blocks",
      pagemap: Wire.pagemap(
        [Wire.entry(0x1000, 2, flags: 4, Wire.blocks([4096, 4096], total: UInt64.max))]),
      expected: .blocks),
    Case(
      name: "block that is no LZ4",
      pagemap: Wire.pagemap([Wire.entry(0x1000, 2, flags: 4, Wire.blocks([4096, 4095]))]),
      pages: [UInt8](repeating: 0xff, count: 8191), expected: .compressedBlock),
    Case(
      name: "pages file too short", pagemap: Wire.pagemap([good]),
      pages: [UInt8](repeating: 1, count: 8191), expected: .payloadSize),
    Case(
      name: "pages file too long", pagemap: Wire.pagemap([good]),
      pages: [UInt8](repeating: 1, count: 8193), expected: .payloadSize),
    Case(
      name: "another pages file", pagemap: Wire.pagemap([good], pagesID: 4_000_000_000),
      expected: .missingFile),
    Case(
      name: "padding that is not zero",
      pagemap: Wire.pagemap([
        Wire.entry(0x1000, 2, flags: 4, Wire.blocks([4096, 0])),
        Wire.entry(0x3000, 1, flags: 4, Wire.blocks([26])), Wire.entry(0x9000, 1, flags: 12),
      ]), pages: [UInt8](repeating: 1, count: 4096 * 3), expected: .padding),
    Case(
      name: "page outside of all VMAs", pagemap: Wire.pagemap([Wire.entry(0x80_0000, 2, flags: 4)]),
      expected: .outsideVMA),
  ]

  @Test("Bad pagemaps are told from good ones", arguments: cases)
  func pagemaps(_ input: Case) throws {
    let scratch = try Scratch()
    try scratch.makeDirectory("dump")
    let usesBlocks = input.name.contains("block")
    try scratch.write("dump/pagemap-5.img", input.pagemap)
    try scratch.write("dump/pages-1.img", input.pages)
    try scratch.write(
      "dump/inventory.img",
      Wire.inventory(version: usesBlocks ? 3 : 2, compress: usesBlocks ? 1 : 0))
    if input.expected != .alignment && !input.name.contains("whole") {
      try scratch.write("dump/mm-5.img", Wire.mm([(0x1000, 0x2000), (0x2000, 0x40_0000)]))
    }
    let report = ChainVerifier.verify(scratch.path + "/dump")
    let damage = report.findings.filter { $0.severity == .damage }.map(\.kind)
    if let expected = input.expected {
      #expect(report.verdict == .damaged)
      #expect(damage.contains(expected), "\(report.findings)")
    } else {
      #expect(report.verdict == .restorable, "\(report.findings)")
      #expect(report.findings.map(\.kind) == [.record] && !report.contentChecked)
    }
  }

  @Test("Inventories that contradict the pages are noticed")
  func inventories() throws {
    let blocks = Wire.pagemap([Wire.entry(0x1000, 2, flags: 4, Wire.blocks([4096, 4096]))])
    for (inventory, pagemap) in [
      (Wire.inventory(version: 2), blocks),
      (Wire.inventory(version: 2, compress: 1), Wire.pagemap([Self.good])),
      (Wire.inventory(version: 9), Wire.pagemap([Self.good])),
    ] {
      let scratch = try Scratch()
      try scratch.makeDirectory("dump")
      try scratch.write("dump/pagemap-5.img", pagemap)
      try scratch.write("dump/pages-1.img", [UInt8](repeating: 1, count: 8192))
      try scratch.write("dump/inventory.img", inventory)
      let report = ChainVerifier.verify(scratch.path + "/dump")
      #expect(report.verdict == .damaged)
      #expect(report.counts.contains { $0.kind == .inventory })
    }
  }

  @Test(
    "Links to parents are followed to siblings only",
    arguments: [
      "/etc", "..", "../..", "../../etc", "b", "../.", "../", "../b/../c", "../gone",
      "../b.partial", "../a",
    ])
  func links(_ target: String) throws {
    let scratch = try Scratch()
    for name in ["a", "b", "b.partial"] {
      try scratch.makeDirectory(name)
      try scratch.write("\(name)/pagemap-5.img", Wire.pagemap([Self.good]))
      try scratch.write("\(name)/pages-1.img", [UInt8](repeating: 1, count: 8192))
      try scratch.write("\(name)/inventory.img", Wire.inventory(version: 2))
    }
    try scratch.link("a/parent", to: target)
    let report = ChainVerifier.verify(scratch.path + "/a")
    #expect(report.verdict == .damaged)
    #expect(report.counts.map(\.kind).contains(.parentLink), "\(report.findings)")
    let chain = try ImageChain(scratch.path + "/a")
    #expect(throws: ImageError.self) { _ = try ComposedImage(chain, stream: .process(pid: 5)) }
  }

  @Test("Slashes behind a parent's name are as CRIU writes them; circles end")
  func circles() throws {
    let scratch = try Scratch()
    for name in ["a", "b", "c"] {
      try scratch.makeDirectory(name)
      try scratch.write("\(name)/pagemap-5.img", Wire.pagemap([Self.good]))
      try scratch.write("\(name)/pages-1.img", [UInt8](repeating: 1, count: 8192))
      try scratch.write("\(name)/inventory.img", Wire.inventory(version: 2))
    }
    try scratch.link("a/parent", to: "../b//")
    #expect(ChainVerifier.verify(scratch.path + "/a").verdict == .consistentNotRestorable)
    try scratch.link("b/parent", to: "../c")
    try scratch.link("c/parent", to: "../b")
    let report = ChainVerifier.verify(scratch.path + "/a")
    #expect(report.counts.map(\.kind).contains(.parentLink))
    #expect(report.rounds.map(\.name) == ["c", "b", "a"])
  }

  @Test("What is no image directory is said to be none")
  func noImages() throws {
    let scratch = try Scratch()
    #expect(ChainVerifier.verify(scratch.path).verdict == .noImages)
    #expect(ChainVerifier.verify(scratch.path + "/gone").verdict == .noImages)
    try scratch.write("pagemap-x.img", [])
    #expect(ChainVerifier.verify(scratch.path).verdict == .noImages)
    try ModelWriter.session(rounds: 0, outcome: .running).write(
      in: try scratch.directory(), sync: false)
    #expect(ChainVerifier.verify(scratch.path).verdict == .noImages)
  }

  @Test("Files that are no files do not hold the verifier")
  func specialFiles() throws {
    let scratch = try Scratch()
    try scratch.makeDirectory("dump")
    try scratch.write("dump/pagemap-5.img", Wire.pagemap([Self.good]))
    try scratch.write("dump/inventory.img", Wire.inventory(version: 2))
    #expect(mkfifo(scratch.path + "/dump/pages-1.img", 0o600) == 0)
    #expect(ChainVerifier.verify(scratch.path + "/dump").verdict == .damaged)
    try scratch.remove("dump/pages-1.img")
    try scratch.makeDirectory("dump/pages-1.img")
    #expect(ChainVerifier.verify(scratch.path + "/dump").verdict == .damaged)
    try scratch.remove("dump/pages-1.img")
    try scratch.link("dump/pages-1.img", to: "/dev/zero")
    #expect(ChainVerifier.verify(scratch.path + "/dump").verdict == .damaged)
  }
}
