import Foundation
import Kernel
import SystemPackage
import TestSupport
import Testing

@Suite(.serialized) struct PagemapScannerTests {
  private let page = Int(pageBytes)

  /// Runs `body` with fresh memory of this process, between inaccessible pages.
  private func withMemory(
    pages: Int, _ body: (PageRange, UnsafeMutableRawPointer) throws -> Void
  ) throws {
    let base = try #require(
      mmap(nil, (pages + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
    defer { munmap(base, (pages + 2) * page) }
    try #require(mprotect(base + page, pages * page, PROT_READ | PROT_WRITE) == 0)
    let start = UInt64(UInt(bitPattern: base + page))
    try body(PageRange(start: start, pageCount: UInt64(pages)), base + page)
  }

  private func tracker() throws -> Userfaultfd {
    try Userfaultfd(owning: try Userfaultfd.open(), of: "this process")
  }

  private func regions(
    _ scanner: borrowing PagemapScanner, _ range: PageRange, _ filter: PagemapScanner.Filter,
    protect: Bool
  ) throws -> [PageRegion] {
    var result: [PageRegion] = []
    try scanner.scan(range, filter: filter, protect: protect) { result.append($0) }
    return result
  }

  @Test("filters tell populated, written and own pages apart")
  func filters() throws {
    try withMemory(pages: 8) { range, memory in
      let userfaultfd = try tracker()
      let scanner = PagemapScanner(pagemap: try ThisThread.open("pagemap"))
      try userfaultfd.register(range)
      memory.storeBytes(of: 1, as: UInt8.self)
      (memory + 3 * page).storeBytes(of: 1, as: UInt8.self)
      #expect(try scanner.count(range, filter: .populated) == 2)
      #expect(try regions(scanner, range, .populated, protect: true).count == 2)
      (memory + 3 * page).storeBytes(of: 2, as: UInt8.self)
      let dirty = try regions(scanner, range, .dirty, protect: false)
      #expect(dirty.map(\.range) == [PageRange(start: range.start + 3 * pageBytes, pageCount: 1)])
      #expect(try scanner.count(range, filter: .ownPages) == 2)
      #expect(try scanner.count(range, filter: .init(required: .present, forbidden: .written)) == 1)
    }
  }

  @Test("a registration holds for its pages alone, until it is ended")
  func registration() throws {
    try withMemory(pages: 4) { range, _ in
      let userfaultfd = try tracker()
      let scanner = PagemapScanner(pagemap: try ThisThread.open("pagemap"))
      let middle = PageRange(start: range.start + pageBytes, pageCount: 2)
      try userfaultfd.register(middle)
      let states = try (0..<4).map { try scanner.isRegistered(range.start + $0 * pageBytes) }
      #expect(states == [false, true, true, false])
      try userfaultfd.unregister(middle)
      #expect(try !scanner.isRegistered(middle.start))
    }
  }

  @Test("a second userfaultfd is refused, and the first one's end frees the memory")
  func busy() throws {
    try withMemory(pages: 2) { range, _ in
      let second = try tracker()
      do {
        let first = try tracker()
        try first.register(range)
        do throws(KernelError) {
          try second.register(range)
          Issue.record("registered twice")
        } catch { #expect(error.errno == .resourceBusy) }
        // The end of a value is the end of its last use, not of its scope.
        try first.register(range)
      }
      try second.register(range)
    }
  }

  @Test("cleared protection makes every page count as written")
  func clearing() throws {
    try withMemory(pages: 4) { range, memory in
      let userfaultfd = try tracker()
      let scanner = PagemapScanner(pagemap: try ThisThread.open("pagemap"))
      try userfaultfd.register(range)
      memset(memory, 1, 4 * page)
      _ = try regions(scanner, range, .populated, protect: true)
      #expect(try scanner.count(range, filter: .dirty) == 0)
      try userfaultfd.clearProtection(range)
      #expect(try scanner.count(range, filter: .dirty) == 4)
    }
  }

  @Test(
    "however short the vector is, every page is reported once and no write is lost",
    arguments: [1, 2, 3, 7, 16, 100])
  func vectors(vectorCount: Int) throws {
    let pages = 600
    try withMemory(pages: pages) { range, memory in
      let userfaultfd = try tracker()
      let scanner = PagemapScanner(
        pagemap: try ThisThread.open("pagemap"), vectorCount: vectorCount)
      try userfaultfd.register(range)
      memset(memory, 1, pages * page)
      _ = try regions(scanner, range, .populated, protect: true)
      for index in stride(from: 0, to: pages, by: 2) {
        (memory + index * page).storeBytes(of: 2, as: UInt8.self)
      }
      let found = try regions(scanner, range, .populated, protect: true)
      #expect(found.count == pages)
      for (index, region) in found.enumerated() {
        let expected = PageRange(start: range.start + UInt64(index) * pageBytes, pageCount: 1)
        #expect(region.range == expected)
        #expect(region.categories.contains(.written) == (index % 2 == 0))
      }
      #expect(try scanner.count(range, filter: .dirty) == 0)
    }
  }

  @Test("the scan of an address space that is gone finds nothing, and only a read tells why")
  func goneAddressSpace() throws {
    let target = try Workload("execer", ["bytes=64K", "threads=0"])
    let process = try TargetProcess(pid: target.pid)
    let scanner = PagemapScanner(pagemap: try process.open("pagemap"))
    let memory = ProcessMemory(file: try process.open("mem"))
    let arena = PageRange(start: try target.number("arena"), pageCount: 16)
    #expect(try scanner.count(arena, filter: .populated) == 16)
    let wasGone = memory.isAddressSpaceGone
    #expect(!wasGone)
    target.program.send("exec")
    _ = try #require(target.program.line(beginning: "ready "))
    #expect(try scanner.count(arena, filter: .populated) == 0)
    let isGone = memory.isAddressSpaceGone
    #expect(isGone)
  }

  @Test("what is not unsettled is in memory, tracked and unwritten, and nothing else is")
  func unsettled() throws {
    try withMemory(pages: 10) { range, memory in
      let userfaultfd = try tracker()
      let scanner = PagemapScanner(pagemap: try ThisThread.open("pagemap"))
      func unsettled() throws -> [PageCategories?] {
        var pages = [PageCategories?](repeating: nil, count: 10)
        for region in try regions(scanner, range, .unsettled, protect: false) {
          for page in 0..<region.range.pageCount {
            pages[Int((region.range.start - range.start) / pageBytes + page)] = region.categories
          }
        }
        return pages
      }
      for index in [0, 1, 2, 3, 5] {
        (memory + index * page).storeBytes(of: 1, as: UInt8.self)
      }
      // Not registered: all is told of.
      #expect(try unsettled().allSatisfy { $0 != nil && !$0!.contains(.writeProtectAllowed) })
      try userfaultfd.register(PageRange(start: range.start, pageCount: 8))
      _ = (memory + 6 * page).load(as: UInt8.self)
      _ = try regions(
        scanner, PageRange(start: range.start, pageCount: 8), .populated, protect: true)
      (memory + page).storeBytes(of: 2, as: UInt8.self)
      madvise(memory + 2 * page, page, MADV_DONTNEED)
      let found = try unsettled()
      // Clean ones are not told of.
      #expect(found[0] == nil && found[3] == nil && found[5] == nil)
      #expect(found[1]?.isSuperset(of: [.written, .present, .writeProtectAllowed]) ?? false)
      // Dropped; never there; the kernel's page of zeros, protected; not registered.
      #expect(found[2]?.isDisjoint(with: .populated) ?? false)
      #expect(found[4]?.isDisjoint(with: .populated) ?? false)
      #expect(found[6]?.contains(.zero) ?? false)
      #expect(found[8].map { !$0.contains(.writeProtectAllowed) } ?? false)
    }
  }

  @Test("memory is still until something in it is written, dropped or no longer tracked")
  func stillness() throws {
    try #require(ShortWay.isSafe(), "this kernel's short way is not used")
    try withMemory(pages: 8) { range, memory in
      let userfaultfd = try tracker()
      let scanner = PagemapScanner(pagemap: try ThisThread.open("pagemap"))
      for index in 0..<8 { (memory + index * page).storeBytes(of: 1, as: UInt8.self) }
      #expect(try !scanner.isStill(range), "not tracked")
      try userfaultfd.register(range)
      #expect(try !scanner.isStill(range), "not protected")
      _ = try regions(scanner, range, .populated, protect: true)
      #expect(try scanner.isStill(range))
      (memory + 7 * page).storeBytes(of: 2, as: UInt8.self)
      #expect(try !scanner.isStill(range), "written")
      #expect(try scanner.isStill(PageRange(start: range.start, pageCount: 7)))
      _ = try regions(scanner, range, .populated, protect: true)
      madvise(memory + 3 * page, page, MADV_DONTNEED)
      #expect(try !scanner.isStill(range), "dropped")
      _ = (memory + 3 * page).load(as: UInt8.self)
      #expect(try !scanner.isStill(range), "dropped, and read since")
      try userfaultfd.unregister(range)
      #expect(try !scanner.isStill(range), "no longer tracked")
    }
  }
}
