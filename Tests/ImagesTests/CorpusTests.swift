import Foundation
import ImageFuzzing
import Testing

/// Inputs that a fuzzer found worth keeping: scripts/fuzz.sh made them, and any that ever broke a
/// reader are among them.
@Suite struct CorpusTests {
  private static let corpus = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("Corpus").path

  @Test("no input of the corpus breaks a reader", arguments: FuzzTarget.allCases)
  func inputs(target: FuzzTarget) throws {
    let directory = "\(Self.corpus)/\(target.rawValue)"
    let names = try FileManager.default.contentsOfDirectory(atPath: directory).sorted()
    #expect(!names.isEmpty)
    let place = try FuzzPlace()
    for name in names {
      let bytes = try #require(FuzzPlace.read("\(directory)/\(name)"))
      _ = bytes.withUnsafeBytes { target.run($0, in: place) }
    }
  }

  @Test("the seeds are good images: the fuzzer starts from where readers go to the end")
  func seeds() throws {
    let place = try FuzzPlace()
    for target in FuzzTarget.allCases where target != .blocks {
      let seed = try #require(target.seeds(of: place).first)
      #expect(seed.withUnsafeBytes { target.run($0, in: place) }, "\(target)")
    }
  }
}
