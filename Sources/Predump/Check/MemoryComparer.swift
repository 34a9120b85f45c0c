internal import Glibc
internal import Images
internal import Kernel
internal import SystemPackage

/// Compares what a chain composes to with the memory of a process that stands still.
struct MemoryComparer: ~Copyable {
  private let process: TargetProcess
  private let memory: ProcessMemory
  private let scanner: PagemapScanner
  private(set) var result = MemoryComparison()
  // One batch of the process's bytes, allocated and freed here, and a page of a file's.
  private let batch: UnsafeMutableRawBufferPointer
  private let filePage: UnsafeMutableRawBufferPointer

  /// - Parameter substitute: as in `ProcessMemory`.
  init(_ process: consuming TargetProcess, substitute: ProcessMemory.Substitute? = nil)
    throws(KernelError)
  {
    let memory = ProcessMemory(file: try process.open("mem"))
    if let substitute { memory.readUnreadable(through: substitute) }
    let scanner = PagemapScanner(pagemap: try process.open("pagemap"))
    self.memory = memory
    self.scanner = scanner
    self.process = process
    batch = .allocate(byteCount: ComposedImage.batchBytes, alignment: Int(pageBytes))
    filePage = .allocate(byteCount: Int(pageBytes), alignment: Int(pageBytes))
  }

  deinit {
    batch.deallocate()
    filePage.deallocate()
  }

  /// Compares the process's own pages: those of the image with the memory, and what the memory holds
  /// beyond them.
  ///
  /// - Parameter vmas: as the newest round's record has them.
  mutating func comparePages(_ chain: borrowing ImageChain, pid: Int32, vmas: [VMARecord]) throws {
    var image = try ComposedImage(chain, stream: .process(pid: pid))
    var covered = PopulatedSet()
    try image.forEachRun { range, bytes in
      covered.append(range)
      try compare(range, bytes)
    }
    var cursor = PopulatedSet.Cursor(covered)
    for vma in vmas { try findUncovered(vma, &cursor) }
  }

  /// Compares a shared memory object, read through the VMA that maps it.
  ///
  /// - Parameter vmas: as the newest round's record has them.
  mutating func compareObject(
    _ chain: borrowing ImageChain, _ object: SharedObjects.Object, vmas: [VMARecord]
  ) throws {
    let mapped = try entry(at: vmas[object.vma].range.start)
    let file = try process.open(SharedObjects.linkName(of: mapped.range))
    var image = try ComposedImage(chain, stream: .sharedObject(id: object.id))
    var covered = PopulatedSet()
    try image.forEachRun { range, bytes in
      covered.append(range)
      let held = UnsafeMutableRawBufferPointer(rebasing: batch[..<bytes.count])
      _ = try SharedObjects.readPages(of: file, at: range.start, into: held)
      comparePages(range, bytes, UnsafeRawBufferPointer(held), "shared object \(object.id)")
    }
    var cursor = PopulatedSet.Cursor(covered)
    var uncovered: [PageRange] = []
    try SharedObjects.forEachDataRun(in: file) { range in
      cursor.split(range) { piece, isCovered in if !isCovered { uncovered.append(piece) } }
    }
    for range in uncovered {
      for page in stride(from: range.start, to: range.end, by: Int(pageBytes)) {
        _ = try SharedObjects.readPages(of: file, at: page, into: onePage)
        noteUnlessZero(page)
      }
    }
  }

  /// The VMA around `address` as it is now. VMAs may have joined since the dump: tracking, which kept
  /// them apart, is over.
  private func entry(at address: UInt64) throws(KernelError) -> MapsEntry {
    if let entry = try process.maps().first(where: { $0.range.contains(address) }) { return entry }
    throw KernelError(
      call: "read", subject: "maps, for \(hexAddress(address))", errno: .noSuchFileOrDirectory)
  }

  /// Compares where something is mapped, and how it is protected. Neighbours of equal protection
  /// count as one: tracking splits VMAs, and the kernel joins them again.
  ///
  /// - Parameter own: what the process has mapped besides.
  mutating func compareLayout(_ expected: [VMARecord], without own: PageRange?) throws(KernelError)
  {
    let wanted = Self.joined(expected.map { Area(range: $0.range, protection: $0.protection) })
    let held = Self.joined(
      try process.maps().filter { $0.path != "[vsyscall]" && $0.range != own }
        .map { Area(range: $0.range, protection: $0.protection) })
    result.vmasCompared += UInt64(expected.count)
    for area in Set(wanted).symmetricDifference(held).sorted(by: { $0.range.start < $1.range.start }
    ) {
      let side = wanted.contains(area) ? "in the images alone" : "in the process alone"
      result.note(
        .layout, at: area.range.start, pages: 0,
        "\(hexAddress(area.range.start))-\(hexAddress(area.range.end)) with protection "
          + "\(area.protection) is \(side)")
    }
  }

  private mutating func compare(_ range: PageRange, _ bytes: UnsafeRawBufferPointer)
    throws(KernelError)
  {
    var address = range.start
    while address < range.end {
      let left = Int(range.end - address)
      let held = UnsafeMutableRawBufferPointer(rebasing: batch[..<left])
      guard case .pages(let count) = try memory.readPages(at: address, into: held) else {
        throw KernelError(call: "pread", subject: "/proc/PID/mem", errno: .noSuchProcess)
      }
      let offset = Int(address - range.start)
      let readable = PageRange(start: address, pageCount: UInt64(count))
      comparePages(
        readable,
        UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + count * Int(pageBytes))]),
        UnsafeRawBufferPointer(rebasing: held[..<(count * Int(pageBytes))]), "memory")
      address = readable.end
      if address < range.end {
        result.note(
          .onlyInImage, at: address, pages: 1, "page \(hexAddress(address)) cannot be read any more"
        )
        address += pageBytes
      }
    }
  }

  private mutating func comparePages(
    _ range: PageRange, _ image: UnsafeRawBufferPointer, _ held: UnsafeRawBufferPointer,
    _ owner: String
  ) {
    result.pagesCompared += range.pageCount
    guard let left = image.baseAddress, let right = held.baseAddress else { return }
    if memcmp(left, right, image.count) == 0 { return }
    for page in 0..<Int(range.pageCount) {
      let offset = page * Int(pageBytes)
      if memcmp(left + offset, right + offset, Int(pageBytes)) == 0 { continue }
      let address = range.start + UInt64(offset)
      result.note(
        .content, at: address, pages: 1, "page \(hexAddress(address)) of \(owner) has other bytes")
    }
  }

  /// Looks for data of the process in pages that the image leaves out.
  private mutating func findUncovered(_ vma: VMARecord, _ cursor: inout PopulatedSet.Cursor) throws
  {
    let filter: PagemapScanner.Filter
    switch vma.treatment {
    case .tracked: filter = .populated
    // A page that is not the process's own comes from the file: it must be what the file has.
    case .privatePagesEachRound: filter = .populated
    case .wholeInFreeze: filter = .populated
    case .unreadable:
      result.unreadableRanges.append(vma.range)
      return
    case .comparedInFreeze, .wholeEachRound, .fromFile, .fromKernel: return
    }
    var uncovered: [PageRange] = []
    try scanner.scan(vma.range, filter: filter, protect: false) { region in
      if region.categories.contains(.guardPage) { return }
      cursor.split(region.range) { piece, isCovered in if !isCovered { uncovered.append(piece) } }
    }
    if uncovered.isEmpty { return }
    if vma.treatment == .privatePagesEachRound {
      let mapped = try entry(at: vma.range.start)
      // A rebuilt process has anonymous memory where the file is gone.
      if mapped.inode != 0 { return try compareWithFile(mapped, uncovered) }
    }
    for range in uncovered {
      for page in stride(from: range.start, to: range.end, by: Int(pageBytes)) {
        if try memory.readPages(at: page, into: onePage) == .pages(1) { noteUnlessZero(page) }
      }
    }
  }

  /// Compares pages that the image leaves to a file with what the file has.
  private mutating func compareWithFile(_ mapped: MapsEntry, _ pages: [PageRange]) throws {
    let file = try process.open(SharedObjects.linkName(of: mapped.range))
    for range in pages {
      for page in stride(from: range.start, to: range.end, by: Int(pageBytes)) {
        guard try memory.readPages(at: page, into: onePage) == .pages(1) else { continue }
        let offset = mapped.fileOffset + (page - mapped.range.start)
        _ = try SharedObjects.readPages(of: file, at: offset, into: filePage)
        if let left = onePage.baseAddress, let right = filePage.baseAddress,
          memcmp(left, right, Int(pageBytes)) != 0
        {
          result.note(
            .onlyInMemory, at: page, pages: 1,
            "page \(hexAddress(page)) holds data that neither the images nor \(mapped.path) have")
        }
      }
    }
  }

  private var onePage: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(rebasing: batch[..<Int(pageBytes)])
  }

  /// Notes the page that was just read into `onePage`, unless it reads as a hole does.
  private mutating func noteUnlessZero(_ page: UInt64) {
    if onePage.contains(where: { $0 != 0 }) {
      result.note(
        .onlyInMemory, at: page, pages: 1,
        "page \(hexAddress(page)) holds data that the images lack")
    }
  }

  private struct Area: Hashable {
    var range: PageRange
    var protection: UInt32
  }

  private static func joined(_ parts: [Area]) -> [Area] {
    var result: [Area] = []
    for part in parts {
      if let last = result.last, last.range.end == part.range.start,
        last.protection == part.protection
      {
        result[result.count - 1].range.end = part.range.end
      } else {
        result.append(part)
      }
    }
    return result
  }
}
