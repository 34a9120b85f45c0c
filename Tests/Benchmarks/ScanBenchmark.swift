internal import CLinux
internal import Kernel
internal import Tracee

/// The scan term: PagemapScanner against the ioctl alone, with a vector of the same length.
enum ScanBenchmark {
  struct Result: Encodable {
    let benchmark: String
    let areas: Int
    let reservedBytes: UInt64
    /// Pages and regions that a call reports; the median where they differ.
    let pages: Double
    let regions: Double
    let bareNs: Double
    let memdumpNs: Double
    let ratio: Double
    let bareSamples: Samples
    let memdumpSamples: Samples
    let mallocsPerScan: UInt64
  }

  /// Finds what is populated, which changes nothing.
  static func populated(_ pid: Int32, _ repetitions: Int) throws -> Result {
    let memory = try TargetMemory(pid: pid)
    return try compare("scan", memory, repetitions, filter: .populated, protect: false) {}
  }

  /// Finds and protects what was written since the last call, as a live round does. Between two
  /// calls the target has 20 ms to write.
  static func dirty(_ pid: Int32, _ repetitions: Int) throws -> Result {
    let memory = try TargetMemory(pid: pid)
    let outcome = try UserfaultfdInjection.inject(into: try TargetProcess(pid: pid))
    let tracking = try Userfaultfd(owning: outcome.take(), of: "pid \(pid)")
    for area in memory.areas { try tracking.register(area) }
    let result = try compare("dirty", memory, repetitions, filter: .dirty, protect: true) {
      MonotonicClock.pause(nanoseconds: 20_000_000)
    }
    // Only here is tracking let go: a longer life than the measurement's.
    for area in memory.areas { try? tracking.unregister(area) }
    return result
  }

  /// Looks for what is not as it was when it was protected, as a freeze does: one thread, and all.
  ///
  /// - Parameter asksIfStill: as of memory in which nothing was written when it was looked at last.
  static func frozen(_ pid: Int32, _ repetitions: Int, asksIfStill: Bool) throws -> FrozenResult {
    let memory = try TargetMemory(pid: pid)
    let outcome = try UserfaultfdInjection.inject(into: try TargetProcess(pid: pid))
    let tracking = try Userfaultfd(owning: outcome.take(), of: "pid \(pid)")
    for area in memory.areas { try tracking.register(area) }
    let scanner = PagemapScanner(pagemap: try memory.open("pagemap"))
    for area in memory.areas {
      try scanner.scan(area, filter: .populated, protect: true) { (_) throws(KernelError) in }
    }
    let pieces = try memory.pieces(pageLimit: 4096).map {
      CrewScanner.Piece(range: $0, asksIfStill: asksIfStill)
    }
    let bare = BareScan(file: try memory.open("pagemap"))
    let alone = CrewScanner(try ThreadCrew(name: "bench-scan", count: 1) {})
    let all = CrewScanner(try ThreadCrew(name: "bench-scan", count: Processors.allowedCount) {})
    var (bareSamples, aloneSamples, allSamples) = (Samples(), Samples(), Samples())
    var failure: CInt = 0
    for repetition in 0...repetitions {
      let bareCost = measure {
        for area in memory.areas {
          failure = min(failure, bare.run(area, filter: .unsettled, protect: false))
        }
      }
      let aloneCost = try measure { () throws(KernelError) in
        _ = try alone.scan(pieces, of: scanner.pagemap)
      }
      let allCost = try measure { () throws(KernelError) in
        _ = try all.scan(pieces, of: scanner.pagemap)
      }
      if repetition == 0 { continue }
      bareSamples.add(Double(bareCost.nanoseconds))
      aloneSamples.add(Double(aloneCost.nanoseconds))
      allSamples.add(Double(allCost.nanoseconds))
    }
    if failure < 0 { throw BenchmarkFailure(description: "PAGEMAP_SCAN: errno \(-failure)") }
    let regions = pieces.indices.reduce(0) { $0 + alone.scanned($1).regions.count }
    for area in memory.areas { try? tracking.unregister(area) }
    return FrozenResult(
      benchmark: asksIfStill ? "still" : "frozen", pieces: pieces.count, regions: regions,
      bareNs: bareSamples.median, memdumpNs: aloneSamples.median, allThreadsNs: allSamples.median,
      ratio: aloneSamples.median / max(bareSamples.median, 1), bareSamples: bareSamples,
      memdumpSamples: aloneSamples, allThreadsSamples: allSamples)
  }

  struct FrozenResult: Encodable {
    let benchmark: String
    let pieces: Int
    let regions: Int
    let bareNs: Double
    let memdumpNs: Double
    let allThreadsNs: Double
    let ratio: Double
    let bareSamples: Samples
    let memdumpSamples: Samples
    let allThreadsSamples: Samples
  }

  private static func compare(
    _ name: String, _ memory: TargetMemory, _ repetitions: Int, filter: PagemapScanner.Filter,
    protect: Bool, pause: () -> Void
  ) throws -> Result {
    let bare = BareScan(file: try memory.open("pagemap"))
    let scanner = PagemapScanner(pagemap: try memory.open("pagemap"))
    var (bareSamples, memdumpSamples, pages, regions) = (Samples(), Samples(), Samples(), Samples())
    var mallocs: UInt64 = 0
    // One more of each: the first meets cold caches, and protects everything.
    for repetition in 0...repetitions {
      pause()
      var failure: CInt = 0
      let bareCost = measure {
        for area in memory.areas {
          failure = min(failure, bare.run(area, filter: filter, protect: protect))
        }
      }
      if failure < 0 { throw BenchmarkFailure(description: "PAGEMAP_SCAN: errno \(-failure)") }
      pause()
      var found: (pages: UInt64, regions: UInt64) = (0, 0)
      let cost = try measure { () throws(ScanFailure<Never>) in
        for area in memory.areas {
          try scanner.scan(area, filter: filter, protect: protect) { region in
            found.pages += region.range.pageCount
            found.regions += 1
          }
        }
      }
      if repetition == 0 { continue }
      bareSamples.add(Double(bareCost.nanoseconds))
      memdumpSamples.add(Double(cost.nanoseconds))
      pages.add(Double(found.pages))
      regions.add(Double(found.regions))
      mallocs = cost.mallocs
    }
    return Result(
      benchmark: name, areas: memory.areas.count,
      reservedBytes: memory.areas.reduce(0) { $0 + $1.byteCount }, pages: pages.median,
      regions: regions.median, bareNs: bareSamples.median, memdumpNs: memdumpSamples.median,
      ratio: memdumpSamples.median / max(bareSamples.median, 1), bareSamples: bareSamples,
      memdumpSamples: memdumpSamples, mallocsPerScan: mallocs)
  }
}

/// The ioctl and nothing else.
private struct BareScan: ~Copyable {
  private let file: File
  private let vector: UnsafeMutablePointer<clinux_page_region>

  init(file: consuming File) {
    self.file = file
    vector = .allocate(capacity: PagemapScanner.defaultVectorCount)
    vector.initialize(
      repeating: clinux_page_region(), count: PagemapScanner.defaultVectorCount)
  }

  deinit { vector.deallocate() }

  /// 0, or -errno.
  func run(_ range: PageRange, filter: PagemapScanner.Filter, protect: Bool) -> CInt {
    var argument = clinux_scan()
    argument.size = UInt64(MemoryLayout<clinux_scan>.size)
    argument.flags = protect ? 1 : 0
    argument.start = range.start
    argument.end = range.end
    argument.vec = UInt64(UInt(bitPattern: vector))
    argument.vec_len = UInt64(PagemapScanner.defaultVectorCount)
    argument.category_mask = filter.required.union(filter.forbidden).rawValue
    argument.category_inverted = filter.forbidden.union(filter.anyMissing).rawValue
    argument.category_anyof_mask = filter.anyOf.union(filter.anyMissing).rawValue
    argument.return_mask = filter.told.rawValue
    while argument.start < range.end {
      let count = clinux_pagemap_scan(file.descriptor.number, &argument)
      if count < 0 { return CInt(count) }
      if argument.walk_end <= argument.start { break }
      argument.start = argument.walk_end
    }
    return 0
  }
}
