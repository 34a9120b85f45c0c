import Foundation
import Kernel
import TestSupport
import Testing

@Suite(.serialized) struct VMAFlagsTests {
  @Test("each VMA has the flags of its own block")
  func parse() {
    let text = """
      00400000-00452000 r-xp 00000000 08:02 173521     /usr/bin/Very Odd: name
      Size:                328 kB
      VmFlags: rd ex mr mw me sd
      abcd000-abce000 rw-p 00000000 00:00 0
      Size:                  4 kB
      VmFlags: rd wr mr mw me ac um uw ht xx gd
      7ffd000-7ffe000 r--p 00000000 00:00 0            [vvar]
      VmFlags: rd mr pf io de dd

      """
    let flags = VMAFlags.parse(smaps: Array(text.utf8))
    #expect(
      flags == [
        PageRange(start: 0x400000, end: 0x452000): .softDirty,
        PageRange(start: 0xabcd000, end: 0xabce000): [
          .userfaultMissing, .userfaultProtect, .hugetlb, .growsDown,
        ],
        PageRange(start: 0x7ffd000, end: 0x7ffe000): [.pureFrameNumbers, .deviceMemory, .dontDump],
      ])
  }

  @Test("the flags of a live process match its advice")
  func live() throws {
    let page = Int(pageBytes)
    let address = try #require(
      mmap(nil, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
    defer { munmap(address, 4 * page) }
    #expect(madvise(address + page, 2 * page, 16) == 0)  // MADV_DONTDUMP
    let smaps = try ThisThread.open("smaps")
    let flags = VMAFlags.parse(smaps: try readToEnd(smaps.descriptor, path: smaps.path))
    let start = UInt64(UInt(bitPattern: address)) + pageBytes
    let found = try #require(flags[PageRange(start: start, pageCount: 2)])
    #expect(found.contains(.dontDump))
    #expect(found.isDisjoint(with: [.userfaultMissing, .userfaultProtect, .hugetlb]))
    #expect(
      Set(flags.keys).isSuperset(
        of: try ThisThread.maps().filter {
          $0.path == "[stack]"
        }.map(\.range)))
  }
}
