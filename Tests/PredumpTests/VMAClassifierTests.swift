import Images
import Kernel
import Testing

@testable import Predump

struct VMAClassifierTests {
  /// A line of maps, its flags, and what follows.
  struct Row: Sendable, CustomTestStringConvertible {
    var path: String
    var isShared = false
    var inode: UInt64 = 0
    var flags: VMAFlags = []
    var kind: VMAKind
    var treatment: VMATreatment

    var testDescription: String { "\(isShared ? "shared" : "private") \(path) inode \(inode)" }
  }

  private static let rows = [
    Row(path: "", kind: .anonymous, treatment: .tracked),
    Row(path: "[anon: glibc: malloc]", kind: .anonymous, treatment: .tracked),
    Row(path: "[heap]", kind: .heap, treatment: .tracked),
    Row(path: "[stack]", kind: .stack, treatment: .tracked),
    Row(
      path: "/usr/lib/libc.so.6", inode: 5, kind: .privateFile, treatment: .privatePagesEachRound),
    Row(
      path: "/memfd:x (deleted)", inode: 5, kind: .privateFile, treatment: .privatePagesEachRound),
    Row(path: "/data", isShared: true, inode: 5, kind: .sharedFile, treatment: .fromFile),
    Row(
      path: "/memfd:x (deleted)", isShared: true, inode: 5, kind: .memfd,
      treatment: .wholeInFreeze),
    Row(
      path: "/SYSV00001234 (deleted)", isShared: true, inode: 5, kind: .sysvSharedMemory,
      treatment: .wholeInFreeze),
    Row(
      path: "/dev/zero (deleted)", isShared: true, inode: 5, kind: .sharedAnonymous,
      treatment: .wholeInFreeze),
    Row(
      path: "[anon_shmem:pool]", isShared: true, inode: 5, kind: .sharedAnonymous,
      treatment: .wholeInFreeze),
    Row(
      path: "/anon_hugepage (deleted)", inode: 5, kind: .hugetlb, treatment: .wholeInFreeze),
    Row(path: "/mnt/huge/x", inode: 5, flags: .hugetlb, kind: .hugetlb, treatment: .wholeInFreeze),
    Row(path: "[vdso]", flags: .dontDump, kind: .vdso, treatment: .wholeEachRound),
    Row(path: "[vvar]", flags: .pureFrameNumbers, kind: .vvar, treatment: .fromKernel),
    Row(path: "[vvar_vclock]", flags: .pureFrameNumbers, kind: .vvar, treatment: .fromKernel),
    Row(path: "[vsyscall]", kind: .vsyscall, treatment: .fromKernel),
    Row(
      path: "/[aio] (deleted)", isShared: true, inode: 5, kind: .aioRing,
      treatment: .wholeEachRound),
    Row(
      path: "anon_inode:[io_uring]", isShared: true, inode: 5, flags: .deviceMemory,
      kind: .ioUring, treatment: .fromKernel),
    Row(
      path: "/secretmem (deleted)", isShared: true, inode: 5, kind: .secretMemory,
      treatment: .unreadable),
    Row(
      path: "/dev/dri/card0", isShared: true, inode: 5, flags: [.deviceMemory, .pureFrameNumbers],
      kind: .device, treatment: .unreadable),
    Row(
      path: "anon_inode:[perf_event]", isShared: true, inode: 5, kind: .device,
      treatment: .unreadable),
  ]

  private func classify(_ rows: [Row]) -> [VMARecord] {
    var text = ""
    var flags: [PageRange: VMAFlags] = [:]
    for (index, row) in rows.enumerated() {
      let range = PageRange(start: UInt64(index + 1) << 20, pageCount: 16)
      let bounds = "\(String(range.start, radix: 16))-\(String(range.end, radix: 16))"
      text += "\(bounds) rw-\(row.isShared ? "s" : "p") 00000000 08:01 \(row.inode) \(row.path)\n"
      flags[range] = row.flags
    }
    let classifier = VMAClassifier()
    return classifier.classify(MapsEntry.parse(Array(text.utf8)), flags: flags)
  }

  @Test("each kind of VMA is known, and what is done with it", arguments: rows)
  func kinds(row: Row) throws {
    let record = try #require(classify([row]).first)
    #expect(record.kind == row.kind)
    #expect(record.treatment == row.treatment)
    #expect(record.path == row.path)
    // MAP_SHARED 1, MAP_PRIVATE 2.
    #expect(record.mapFlags & 3 == (row.isShared ? 1 : 2))
  }

  @Test("written bits are trusted for private anonymous memory alone")
  func trust() {
    for record in classify(Self.rows) where record.treatment == .tracked {
      #expect([.anonymous, .heap, .stack].contains(record.kind))
      #expect(record.mapFlags & 1 == 0)
    }
  }

  @Test("an object that is mapped twice has one number, another one another")
  func sharedObjects() {
    let memfd = Row(
      path: "/memfd:x (deleted)", isShared: true, inode: 5, kind: .memfd, treatment: .wholeInFreeze)
    var other = memfd
    other.inode = 6
    let ids = classify([memfd, other, memfd]).map(\.sharedObjectID)
    #expect(ids[0] == ids[2])
    #expect(ids[0] != ids[1])
    #expect(!ids.contains(0))
    #expect(classify([Self.rows[0]]).first?.sharedObjectID == 0)
  }

  @Test("a SysV segment is not the memfd whose inode number is the segment's id")
  func segmentNumbers() {
    let ids = classify(
      ["/memfd:x (deleted)", "/SYSV00000000 (deleted)"].map {
        Row(path: $0, isShared: true, inode: 5, kind: .memfd, treatment: .wholeInFreeze)
      }
    ).map(\.sharedObjectID)
    #expect(ids[0] != ids[1])
  }

  @Test("flags and advice become mmap's and madvise's numbers")
  func flagBits() throws {
    let row = Row(
      path: "", flags: [.growsDown, .locked, .noReserve, .hugePages, .dontFork, .dontDump],
      kind: .anonymous, treatment: .tracked)
    let record = try #require(classify([row]).first)
    // MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_LOCKED | MAP_NORESERVE
    #expect(record.mapFlags == 0x2 | 0x20 | 0x100 | 0x2000 | 0x4000)
    #expect(record.adviceBits == 1 << 14 | 1 << 10 | 1 << 16)
  }

  @Test("a new VMA, whose flags are not known yet, is judged by its path")
  func unknownFlags() {
    let text = "1000-2000 rw-p 00000000 00:00 0 [heap]\n"
    let classifier = VMAClassifier()
    let records = classifier.classify(MapsEntry.parse(Array(text.utf8)), flags: [:])
    #expect(records.map(\.kind) == [.heap])
  }
}
