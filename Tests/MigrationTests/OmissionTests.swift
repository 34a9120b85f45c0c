import Foundation
import Kernel
import Predump
import TestSupport
import Testing

@testable import Migration

/// Which way CRIU is told to leave memory out.
@Suite struct OmissionTests {
  private struct Unasked: Error {}

  @Test("soft-dirty tracking is taken where nobody else uses it", arguments: [true, false])
  func automatic(isFree: Bool) throws {
    let way = MemoryOmission.automatic
    #expect(
      try way.settled(isTracked: true) { isFree } == (isFree ? .softDirty : .automatic))
    #expect(try way.settled(isTracked: false) { throw Unasked() } == .automatic)
  }

  @Test("what is asked for is done, whoever else uses the tracking", arguments: [true, false])
  func explicit(isTracked: Bool) throws {
    for way in [MemoryOmission.lazy, .stream] {
      #expect(try way.settled(isTracked: isTracked) { throw Unasked() } == way)
    }
    #expect(try MemoryOmission.softDirty.settled(isTracked: true) { false } == .softDirty)
  }

  @Test("soft-dirty tracking that the kernel has not is refused by name") func lacking() throws {
    #expect {
      try MemoryOmission.softDirty.settled(isTracked: false) { true }
    } throws: { error in
      guard case .unsupportedKernel(let text)? = error as? PredumpError else { return false }
      return text.contains("CONFIG_MEM_SOFT_DIRTY") && text.contains("--omit")
    }
  }

  @Test("CRIU has a parent exactly where it leaves out what is in one")
  func means() throws {
    let scratch = try TemporaryDirectory()
    let place = try Directory.open(scratch.path, followSymlink: false)
    for way in MemoryOmission.allCases {
      let parent = try way.parent(in: place)
      let names = try place.names()
      let options = way.arguments
      #expect(names.isEmpty == (way != .softDirty))
      #expect(options.contains("--prev-images-dir") == (way == .softDirty))
      #expect(names.allSatisfy { options.last == $0 })
      _ = consume parent
      #expect(try place.names() == [])
    }
  }
}
