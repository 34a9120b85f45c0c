internal import Images
internal import Kernel

/// Tells from `/proc/PID/maps` and the VMA's flags what a VMA is and what is done with its pages.
///
/// The kernel's word that a page was written is trusted for private anonymous memory alone: pages of
/// shared objects change through other mappings and descriptors, file-backed and hugetlb pages lose
/// changes to MADV_DONTNEED unseen, and a guard page in a write-protected file mapping makes the
/// target hang.
struct VMAClassifier {
  private static let mapShared: UInt32 = 0x01
  private static let mapPrivate: UInt32 = 0x02
  private static let mapAnonymous: UInt32 = 0x20

  private let numbers: SharedObjectNumbers
  private let faults: EngineFaultPlan

  init(
    numbers: SharedObjectNumbers = SharedObjectNumbers(),
    faults: EngineFaultPlan = EngineFaultPlan()
  ) {
    self.numbers = numbers
    self.faults = faults
  }

  /// Describes every VMA. `flags` may lack VMAs that are new; they are judged by their path alone.
  func classify(_ maps: [MapsEntry], flags: [PageRange: VMAFlags]) -> [VMARecord] {
    var records: [VMARecord] = []
    records.reserveCapacity(maps.count)
    for entry in maps { records.append(record(for: entry, flags: flags[entry.range] ?? [])) }
    return records
  }

  private func record(for entry: MapsEntry, flags: VMAFlags) -> VMARecord {
    let kind = Self.kind(of: entry, flags: flags)
    let isTrackedWrongly = faults.has(entry.isShared ? .trackShared : .trustWrittenAlone)
    var record = VMARecord(
      range: entry.range, fileOffset: entry.fileOffset, protection: entry.protection,
      mapFlags: Self.mapFlags(of: entry, kind: kind, flags: flags),
      status: Self.status(of: kind, isShared: entry.isShared),
      adviceBits: Self.adviceBits(of: flags), sharedObjectID: 0, kind: kind,
      treatment: Self.treatment(of: kind, isShared: entry.isShared), path: entry.path)
    if isTrackedWrongly, [.wholeInFreeze, .privatePagesEachRound].contains(record.treatment) {
      record.treatment = .tracked
    }
    if entry.isShared, record.treatment == .wholeInFreeze {
      record.sharedObjectID = numbers.number(
        device: entry.device, inode: entry.inode, isSysV: kind == .sysvSharedMemory)
    }
    return record
  }

  static func kind(of entry: MapsEntry, flags: VMAFlags) -> VMAKind {
    switch entry.path {
    case "[vdso]": return .vdso
    case "[vsyscall]": return .vsyscall
    case "[vvar]", "[vvar_vclock]", "[uprobes]": return .vvar
    default: break
    }
    if entry.path.hasPrefix("/[aio]") { return .aioRing }
    if entry.path.hasPrefix("anon_inode:[io_uring]") { return .ioUring }
    if entry.path.hasPrefix("/secretmem") { return .secretMemory }
    if flags.contains(.deviceMemory) || flags.contains(.pureFrameNumbers)
      || entry.path.hasPrefix("anon_inode:")
    {
      return .device
    }
    if flags.contains(.hugetlb) || entry.path == "/anon_hugepage (deleted)" { return .hugetlb }
    if entry.isShared { return sharedKind(of: entry.path) }
    switch entry.path {
    case "[heap]": return .heap
    case "[stack]": return .stack
    default: return entry.inode == 0 ? .anonymous : .privateFile
    }
  }

  private static func sharedKind(of path: String) -> VMAKind {
    if path.hasPrefix("/memfd:") { return .memfd }
    if path.hasPrefix("/SYSV"), path.hasSuffix("(deleted)") { return .sysvSharedMemory }
    if path == "/dev/zero (deleted)" || path.hasPrefix("[anon_shmem:") { return .sharedAnonymous }
    return .sharedFile
  }

  static func treatment(of kind: VMAKind, isShared: Bool) -> VMATreatment {
    switch kind {
    case .anonymous, .heap, .stack: return .tracked
    case .privateFile: return .privatePagesEachRound
    case .sharedFile: return .fromFile
    case .sharedAnonymous, .memfd, .sysvSharedMemory, .hugetlb: return .wholeInFreeze
    case .vdso, .aioRing: return .wholeEachRound
    case .vvar, .vsyscall, .ioUring: return .fromKernel
    case .device, .secretMemory: return .unreadable
    }
  }

  private static func mapFlags(of entry: MapsEntry, kind: VMAKind, flags: VMAFlags) -> UInt32 {
    var bits = entry.isShared ? mapShared : mapPrivate
    switch kind {
    case .anonymous, .heap, .stack, .sharedAnonymous, .vdso, .vvar: bits |= mapAnonymous
    case .hugetlb where entry.path == "/anon_hugepage (deleted)": bits |= mapAnonymous
    default: break
    }
    if flags.contains(.growsDown) { bits |= 0x100 }
    if flags.contains(.locked) { bits |= 0x2000 }
    if flags.contains(.noReserve) { bits |= 0x4000 }
    if kind == .hugetlb { bits |= 0x40000 }
    return bits
  }

  /// CRIU's VMA_AREA_* bits.
  private static func status(of kind: VMAKind, isShared: Bool) -> UInt32 {
    let regular: UInt32 = 1 << 0
    let anonymousPrivate: UInt32 = 1 << 9
    switch kind {
    case .anonymous: return regular | anonymousPrivate
    case .stack: return regular | anonymousPrivate | 1 << 1
    case .heap: return regular | anonymousPrivate | 1 << 5
    case .vdso: return regular | anonymousPrivate | 1 << 3
    case .vvar: return regular | anonymousPrivate | 1 << 12
    case .vsyscall: return 1 << 2
    case .privateFile: return regular | 1 << 6
    case .sharedFile, .device, .ioUring, .secretMemory: return regular | 1 << 7
    case .sharedAnonymous: return regular | 1 << 8
    case .memfd: return regular | 1 << 7 | 1 << 14
    case .sysvSharedMemory: return regular | 1 << 8 | 1 << 10
    case .hugetlb: return regular | (isShared ? 1 << 8 : anonymousPrivate)
    case .aioRing: return regular | 1 << 13
    }
  }

  /// Bit N for MADV_N (CRIU `vma_entry.madv`).
  private static func adviceBits(of flags: VMAFlags) -> UInt64 {
    let advice: [(VMAFlags, UInt64)] = [
      (.randomRead, 1), (.sequentialRead, 2), (.dontFork, 10), (.mergeable, 12), (.hugePages, 14),
      (.noHugePages, 15), (.dontDump, 16), (.wipeOnFork, 18),
    ]
    return advice.reduce(0) { flags.contains($1.0) ? $0 | 1 << $1.1 : $0 }
  }
}
