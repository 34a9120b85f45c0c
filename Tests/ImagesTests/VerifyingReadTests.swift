import Foundation
import Kernel
import Testing

@testable import Images

/// Reading with digests finds what reading alone takes for memory.
struct VerifyingReadTests {
  @Test(
    "every page read is compared with its digest, also where rounds take turns",
    arguments: [PageCompression.none, .lz4(pagesPerBlock: 16, acceleration: 1)])
  func flips(compression: PageCompression) throws {
    let scratch = try Scratch()
    var generator = SeededGenerator(seed: SeededGenerator.seed)
    var memory = ModelMemory(using: &generator)
    var writer = ModelWriter(compression: compression, generator: generator)
    for index in 1...4 {
      if index > 1 { memory.step(using: &generator) }
      _ = try writer.write(
        memory, index: index, kind: index == 4 ? .frozen : .live, in: scratch.directory())
    }
    let whole = try read(scratch)
    #expect(whole.count == memory.pages.count)
    for (page, bytes) in whole { #expect(memory.pages[page]?.bytes == bytes) }
    for _ in 0..<60 {
      let name = "\(ModelWriter.name(Int.random(in: 1...4, using: &generator)))/pages-1.img"
      let good = try scratch.bytes(name)
      guard !good.isEmpty else { continue }
      var bad = good
      bad[Int.random(in: 0..<bad.count, using: &generator)] ^= 0x10
      try scratch.write(name, bad)
      // A byte of a page that a newer round replaces, or of padding, does no harm.
      if let taken = try? read(scratch) {
        // Compared outside of the macro, which would print both.
        let isSame = taken == whole
        #expect(isSame, "\(name)")
      }
      try scratch.write(name, good)
    }
  }

  private func read(_ scratch: Scratch) throws -> [UInt64: [UInt8]] {
    var image = try ComposedImage(
      try ImageChain(scratch.path), stream: .process(pid: 7), verifying: true)
    var pages: [UInt64: [UInt8]] = [:]
    try image.forEachRun { range, bytes in
      for index in 0..<Int(range.pageCount) {
        pages[range.start / pageBytes + UInt64(index)] = [UInt8](
          bytes[(index * 4096)..<((index + 1) * 4096)])
      }
    }
    return pages
  }
}
