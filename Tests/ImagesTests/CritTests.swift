import Foundation
import Kernel
import Testing

@testable import Images

/// Where CRIU's own image tool is.
private enum Crit {
  static let path: String? = {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent().path
    let path =
      ProcessInfo.processInfo.environment["MEMDUMP_CRIT"] ?? "\(root)/.build/criu/bin/crit"
    return FileManager.default.isExecutableFile(atPath: path) ? path : nil
  }()
}

/// CRIU's own image tool reads what we write. Needs crit 4.3: `scripts/criu-root.sh`, or its path
/// in `MEMDUMP_CRIT`.
@Suite(.enabled(if: Crit.path != nil)) struct CritTests {
  /// Runs crit and returns what it printed.
  static func run(_ arguments: String...) throws -> String {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try #require(Crit.path))
    process.arguments = arguments
    let output = Pipe()
    process.standardOutput = output
    process.standardError = output
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    #expect(process.terminationStatus == 0, "crit \(arguments): \(text)")
    return text
  }

  @Test("crit decompresses our rounds to their pages", arguments: [1, 3, 16, 64, 256, 1024])
  func decompression(_ pagesPerBlock: Int) throws {
    let plain = try Scratch()
    let compressed = try Scratch()
    let seed = SeededGenerator.seed &+ 500
    _ = try RoundTripTests.writeChain(in: plain, rounds: 3, compression: .none, seed: seed)
    _ = try RoundTripTests.writeChain(
      in: compressed, rounds: 3, compression: .lz4(pagesPerBlock: pagesPerBlock, acceleration: 1),
      seed: seed)
    for round in (1...3).map({ ModelWriter.name($0) }) {
      _ = try Self.run("decompress", "--in-place", "\(compressed.path)/\(round)")
      for pages in ["pages-1.img", "pages-2.img"] {
        #expect(try compressed.bytes("\(round)/\(pages)") == plain.bytes("\(round)/\(pages)"))
      }
    }
  }

  @Test("crit finds the fields that we wrote", arguments: [PageCompression.none, .standard])
  func fields(_ compression: PageCompression) throws {
    let scratch = try Scratch()
    let (memory, _) = try RoundTripTests.writeChain(
      in: scratch, rounds: 2, compression: compression, seed: SeededGenerator.seed &+ 501)
    let round = scratch.path + "/round-002"
    func entries(_ file: String) throws -> [[String: Any]] {
      let json = try JSONSerialization.jsonObject(
        with: Data(try Self.run("decode", "-i", "\(round)/\(file)").utf8))
      return try #require((json as? [String: Any])?["entries"] as? [[String: Any]])
    }
    var expected: [PagemapEntry] = []
    try ChainSummary.forEachEntry(of: .process(pid: 7), inRound: round) { expected.append($0) }
    let found = try entries("pagemap-7.img").dropFirst()
    #expect(found.map { $0["nr_pages"] as? UInt64 } == expected.map(\.range.pageCount))
    #expect(
      found.map { ($0["blocks"] as? [String: Any])?["block_sizes"] as? [UInt32] ?? [] }
        == expected.map(\.blockSizes))
    #expect(
      expected.reduce(0) { $0 + $1.range.pageCount } == UInt64(memory.pages.count))
    #expect(try entries("mm-7.img").first?["vmas"] as? [[String: Any]] != nil)
    #expect(try entries("stats-dump").first?["dump"] as? [String: Any] != nil)
    let inventory = try #require(try entries("inventory.img").first)
    #expect(inventory["img_version"] as? Int == (compression == .none ? 2 : 3))
    #expect(inventory["dump_uptime"] as? Int == 5_000_000)
  }
}
