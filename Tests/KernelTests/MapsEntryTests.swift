import Foundation
import Kernel
import TestSupport
import Testing

@Suite(.serialized) struct MapsEntryTests {
  private func parse(_ text: String) -> [MapsEntry] { MapsEntry.parse(Array(text.utf8)) }

  @Test("a line's columns become an entry's members")
  func columns() throws {
    let entries = parse(
      """
      00400000-00452000 r-xp 00001000 103:02 173521      /usr/bin/dbus-daemon
      7f00deadb000-7f00deadf000 ---s 123456789abc 00:1f 18446744073709551615 /memfd:x (deleted)
      ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]

      """)
    #expect(entries.count == 3)
    #expect(entries[0].range == PageRange(start: 0x400000, end: 0x452000))
    #expect(entries[0].protection == 5)
    #expect(!entries[0].isShared)
    #expect(entries[0].fileOffset == 0x1000)
    #expect(entries[0].device == 0x103 << 32 | 2)
    #expect(entries[0].inode == 173_521)
    #expect(entries[0].path == "/usr/bin/dbus-daemon")
    #expect(entries[1].protection == 0)
    #expect(entries[1].isShared)
    #expect(entries[1].fileOffset == 0x1234_5678_9abc)
    #expect(entries[1].inode == .max)
    #expect(entries[1].path == "/memfd:x (deleted)")
    #expect(entries[2].range.end == 0xffff_ffff_ff60_1000)
    #expect(entries[2].path == "[vsyscall]")
  }

  @Test(
    "the path is the rest of the line, as the kernel escapes it",
    arguments: [
      "", "[heap]", "[anon: two words ]", "/a b/c", "/line\\012break", "/x (deleted)",
      "/back\\134slash", "/dev/zero (deleted)", "//anon", "/été", "/00400000-00452000 rw-p 0 0:0 0",
    ])
  func paths(path: String) throws {
    let entry = try #require(parse("1000-2000 rw-p 00000000 00:00 7          \(path)\n").first)
    #expect(entry.path == path)
    #expect(entry.inode == 7)
  }

  @Test("a VMA that grew while the file was read is listed again: only what is new is kept")
  func overlaps() {
    let entries = parse(
      """
      1000-3000 rw-p 00000000 00:00 0
      1000-5000 rw-p 00000000 00:00 0
      5000-7000 r--p 00001000 08:01 7 /file
      6000-9000 r--p 00002000 08:01 7 /file
      6000-8000 r--p 00002000 08:01 7 /file

      """)
    #expect(entries.map(\.range.start) == [0x1000, 0x3000, 0x5000, 0x7000])
    #expect(entries.map(\.range.end) == [0x3000, 0x5000, 0x7000, 0x9000])
    #expect(entries.map(\.fileOffset) == [0, 0, 0x1000, 0x3000])
  }

  @Test("a file's name with a newline, as a live process maps it, stays one entry")
  func liveNewline() throws {
    let path = "/var/tmp/memdump a\nb\\c-\(getpid())"
    try Data(repeating: 1, count: 4096).write(to: URL(fileURLWithPath: path))
    defer { unlink(path) }
    let file = open(path, O_RDONLY)
    let address = try #require(mmap(nil, 4096, PROT_READ, MAP_PRIVATE, file, 0))
    close(file)
    defer { munmap(address, 4096) }
    let entries = try ThisThread.maps()
    let entry = try #require(
      entries.first { $0.range.start == UInt64(UInt(bitPattern: address)) })
    #expect(entry.path == path.replacingOccurrences(of: "\n", with: "\\012"))
    #expect(zip(entries, entries.dropFirst()).allSatisfy { $0.range.end <= $1.range.start })
  }

  @Test(
    "lines that are not a VMA's are passed over",
    arguments: ["\n\n", "nonsense\n", "1000\n", "1000-2000\n", "1000-2000 rw\n", "-\n"])
  func nonsense(text: String) {
    let good = "3000-4000 r--p 00000000 00:00 0 \n"
    #expect(parse(text + good).map(\.range.start) == [0x3000])
    #expect(parse(text).isEmpty)
  }

  @Test("a last line without its newline is an entry too")
  func noNewline() {
    #expect(parse("1000-2000 rw-p 00000000 00:00 0").count == 1)
    #expect(parse("1000-2000 rw-p 00000000 00:00 0 /x").first?.path == "/x")
  }
}
