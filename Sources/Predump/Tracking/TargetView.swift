internal import Images
internal import Kernel
internal import SystemPackage

/// What memdump reads of the target: who it is, its VMAs, its memory.
struct TargetView: ~Copyable {
  let process: TargetProcess
  let sharedMemory: SharedProcessMemory
  let identity: TargetIdentity
  private let classifier: VMAClassifier
  private var knownFlags: [PageRange: VMAFlags]
  /// What was mapped where when the flags were read: a device's are not those of the memory that
  /// came to lie in its place.
  private var flagOwners: [PageRange: FlagOwner]

  private struct FlagOwner: Equatable {
    var device: UInt64
    var inode: UInt64
    var isShared: Bool

    init(_ entry: MapsEntry) {
      device = entry.device
      inode = entry.inode
      isShared = entry.isShared
    }
  }

  /// Takes hold of the process's address space: what it has after an execve is another one.
  ///
  /// - Parameters:
  ///   - numbers: of the shared objects; all processes of a dump have one in common.
  ///   - look: what is known of its VMAs, if somebody has just looked.
  init(
    _ process: consuming TargetProcess, numbers: SharedObjectNumbers = SharedObjectNumbers(),
    look: MemoryLook? = nil, faults: EngineFaultPlan = EngineFaultPlan()
  ) throws(PredumpError) {
    let pid = process.pid
    let identity: TargetIdentity
    do throws(KernelError) {
      identity = TargetIdentity(
        pid: pid, startTicks: process.startTicks, bootID: try Self.bootID(),
        command: try process.status().name)
    } catch { throw Self.explain(error, pid: pid, exited: process.hasExited) }
    let memory: ProcessMemory
    do throws(KernelError) { memory = ProcessMemory(file: try process.open("mem")) } catch {
      throw Self.explain(error, pid: pid, exited: process.hasExited)
    }
    sharedMemory = SharedProcessMemory(memory)
    self.identity = identity
    classifier = VMAClassifier(numbers: numbers, faults: faults)
    (knownFlags, flagOwners) = ([:], [:])
    let startTicks = process.startTicks
    self.process = process
    if let look, look.startTicks == startTicks { know(look.flags, look.maps) }
  }

  /// The process's memory.
  var memory: ProcessMemory {
    _read { yield sharedMemory.memory }
  }

  /// The VMAs now, judged and described.
  ///
  /// - Parameter isFrozen: the flags of VMAs that are new are then not asked for, which would walk
  ///   all page tables.
  mutating func addressSpace(isFrozen: Bool) throws(PredumpError) -> AddressSpace {
    var space = AddressSpace()
    do throws(KernelError) {
      let maps = try process.maps()
      if maps.isEmpty { throw KernelError(call: "read", subject: "maps", errno: .noSuchProcess) }
      for entry in maps where flagOwners[entry.range] != FlagOwner(entry) {
        knownFlags[entry.range] = nil
      }
      if !isFrozen, maps.contains(where: { knownFlags[$0.range] == nil }) {
        know(VMAFlags.parse(smaps: try process.read("smaps")), maps)
      }
      space.vmas = classifier.classify(maps, flags: knownFlags)
      try fill(&space)
    } catch {
      throw Self.explain(error, pid: process.pid, exited: process.hasExited)
    }
    return space
  }

  private mutating func know(_ flags: [PageRange: VMAFlags], _ maps: [MapsEntry]) {
    knownFlags = flags
    flagOwners.removeAll(keepingCapacity: true)
    for entry in maps { flagOwners[entry.range] = FlagOwner(entry) }
  }

  /// VMAs that belong to a userfaultfd of the target's own; valid after `addressSpace`.
  func isTargetsOwnUserfault(_ range: PageRange) -> Bool {
    knownFlags[range]?.contains(.userfaultMissing) ?? false
  }

  /// Turns a failed look at the target into what the user has to know.
  func explain(_ error: KernelError) -> PredumpError {
    Self.explain(error, pid: process.pid, exited: process.hasExited)
  }

  /// The target's address space is gone: tells how.
  var end: PredumpError {
    .targetGone(pid: process.pid, how: process.hasExited ? .exited : .replaced)
  }

  private static func explain(_ error: KernelError, pid: Int32, exited: Bool) -> PredumpError {
    if exited { return .targetGone(pid: pid, how: .exited) }
    switch error.errno {
    case .noSuchProcess: return .targetGone(pid: pid, how: .replaced)
    case .permissionDenied, .notPermitted:
      return .permission("\(error); run memdump as root or with CAP_SYS_PTRACE")
    default: return .kernel(error)
    }
  }

  private func fill(_ space: inout AddressSpace) throws(KernelError) {
    let stat = try process.stat()
    space.codeStart = stat.codeStart
    space.codeEnd = stat.codeEnd
    space.dataStart = stat.dataStart
    space.dataEnd = stat.dataEnd
    space.stackStart = stat.stackStart
    space.breakStart = stat.breakStart
    // The kernel tells the break to nobody but the process; the heap's end is it, in whole pages.
    space.breakEnd = space.vmas.first { $0.kind == .heap }?.range.end ?? stat.breakStart
    space.argumentsStart = stat.argumentsStart
    space.argumentsEnd = stat.argumentsEnd
    space.environmentStart = stat.environmentStart
    space.environmentEnd = stat.environmentEnd
    let auxiliary = try process.read("auxv")
    space.auxiliaryVector = stride(from: 0, to: auxiliary.count - 7, by: 8).map { offset in
      (0..<8).reduce(UInt64(0)) { $0 | UInt64(auxiliary[offset + $1]) << (8 * UInt64($1)) }
    }
  }

  private static func bootID() throws(KernelError) -> String {
    let directory = try Directory.open("/proc/sys/kernel/random", followSymlink: true)
    let bytes = try readToEnd(try directory.openFile("boot_id"), path: directory.join("boot_id"))
    return String(decoding: bytes.prefix { $0 != 0x0a }, as: UTF8.self)
  }
}
