import Kernel
import Testing

@testable import Predump

struct MappingEdgesTests {
  private let maps = MapsEntry.parse(
    Array(
      """
      10000-16000 rw-p 00000000 00:00 0
      20000-24000 rw-p 00000000 00:00 0
      24000-30000 rw-p 00000000 00:00 0
      30000-31000 ---p 00000000 00:00 0
      31000-33000 rw-p 00000000 08:01 7  /lib/x.so
      33000-34000 rw-p 00000000 00:00 0

      """.utf8))

  @Test("what has grown since the list was made is covered whole") func widened() {
    let wide = MappingEdges.widened(PageRange(start: 0x12000, end: 0x22000), maps)
    #expect(wide == PageRange(start: 0x10000, end: 0x24000))
    let file = PageRange(start: 0x31000, end: 0x32000)
    #expect(MappingEdges.widened(file, maps) == file, "files do not join anonymous memory")
  }

  @Test("the other half of what was split is found, on either side") func continuations() {
    let half = PageRange(start: 0x20000, end: 0x24000)
    let rest = PageRange(start: 0x24000, end: 0x30000)
    #expect(MappingEdges.continuations(of: [half], maps) == [rest])
    #expect(
      MappingEdges.continuations(of: [rest], maps) == [half], "not what is protected otherwise")
    let alone = PageRange(start: 0x33000, end: 0x34000)
    #expect(MappingEdges.continuations(of: [alone], maps) == [])
  }
}
