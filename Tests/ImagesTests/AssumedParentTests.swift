import Kernel
import Testing

@testable import Images

/// What CRIU is shown in place of the rounds.
@Suite struct AssumedParentTests {
  @Test("the parent claims every page of a process, and goes with CRIU's link to it")
  func claims() throws {
    let scratch = try Scratch()
    let place = try Directory.open(scratch.path, followSymlink: false)
    var parent: AssumedParent? = try AssumedParent(in: place)
    try parent?.claimPages(of: [7, 9])
    let name = try #require(AssumedParent.arguments.last)
    try place.createSymlink("parent", to: name)
    let directory = try place.directory(name)
    #expect(try directory.names() == ["inventory.img", "pagemap-7.img", "pagemap-9.img"])
    for pid: Int32 in [7, 9] {
      var pagemap = try PagemapReader("pagemap-\(pid).img", in: directory)
      #expect(try pagemap.advance())
      #expect(pagemap.entry.range == PageRange(start: 0, end: 1 << 47))
      #expect(pagemap.entry.flags == .parent)
      #expect(try !pagemap.advance())
    }
    #expect(try Inventory.read(in: directory).version == 2)
    parent = nil
    #expect(try place.names() == [])
  }
}
