import Kernel
import Testing

@testable import Predump

@Suite("Rehearsing a freeze's copy") final class CopyRehearsalTests {
  private let own: AnonymousMemory
  private let shared: SharedProcessMemory
  private let crew: ThreadCrew
  private let rehearsal: CopyRehearsal

  init() throws {
    own = try AnonymousMemory(byteCount: 2000 * Int(pageBytes))
    own.populate(first: own.byteCount)
    shared = SharedProcessMemory(ProcessMemory(file: try ThisThread.open("mem")))
    crew = try ThreadCrew(name: "rehearsal", count: 2) {}
    rehearsal = try CopyRehearsal()
  }

  /// Every second page of ours.
  private func pending(_ count: Int) -> PopulatedSet {
    var pending = PopulatedSet()
    for page in 0..<count {
      let bytes = own.bytes(at: 2 * page * Int(pageBytes), count: 1)
      pending.append(PageRange(start: UInt64(UInt(bitPattern: bytes.baseAddress)), pageCount: 1))
    }
    return pending
  }

  @Test("reads a part of many pages, and all of some", arguments: [(1000, 256), (100, 100)])
  func measures(pages: Int, read: Int) throws {
    let copied = try #require(rehearsal.run(pending(pages), from: shared, crew))
    #expect(copied.pages == UInt64(read) && copied.nanoseconds > 0)
  }

  @Test("a few pages are not worth it")
  func few() { #expect(rehearsal.run(pending(20), from: shared, crew) == nil) }

  @Test("pages that are gone meanwhile tell nothing")
  func gone() {
    var pending = PopulatedSet()
    // Nobody maps memory there.
    for page in 1...100 {
      pending.append(PageRange(start: UInt64(2 * page) * pageBytes, pageCount: 1))
    }
    #expect(rehearsal.run(pending, from: shared, crew) == nil)
  }
}
