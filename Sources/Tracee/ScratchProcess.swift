internal import CLinux
internal import Glibc
package import Kernel
internal import SystemPackage

/// An empty process, made to hold an address space for inspection. It never runs an instruction but
/// the system calls that it is told to make, and is killed when dropped, or with the OS thread that
/// made it.
package struct ScratchProcess: ~Copyable {
  private static let mmapNumber: UInt64 = 9
  private static let mprotectNumber: UInt64 = 10
  private static let munmapNumber: UInt64 = 11
  private static let rseqNumber: UInt64 = 334
  /// End of the user half of a 48-bit address space (bytes).
  private static let addressLimit: UInt64 = 0x7fff_ffff_f000
  /// Lowest address that may be mapped by default (vm.mmap_min_addr).
  private static let lowestAddress: UInt64 = 0x1_0000

  /// Its process id.
  package let pid: Int32
  /// What is mapped of its own: the page that holds its one instruction.
  package let ownRange: PageRange
  /// Its memory.
  package let memory: ProcessMemory

  /// Forks a child of the calling OS thread and unmaps all that it has.
  ///
  /// Descriptors that are open in this process are open in it, under the same numbers.
  /// - Parameter ranges: where nothing of its own may lie; ascending.
  package init(avoiding ranges: [PageRange]) throws(TraceError) {
    let child = clinux_fork_stopped()
    if child < 0 {
      throw .kernel(
        KernelError(call: "fork", subject: "scratch process", errno: Errno(rawValue: -child)))
    }
    let process = ChildGuard(pid: child)
    var status: CInt = 0
    guard clinux_wait(child, &status) == child, status & 0xff == 0x7f else {
      throw .gone(pid: child)
    }
    let target: TargetProcess
    do throws(KernelError) { target = try TargetProcess(pid: child) } catch { throw .kernel(error) }
    let memory: ProcessMemory
    do throws(KernelError) {
      memory = ProcessMemory(file: try target.open("mem", writable: true))
    } catch { throw .kernel(error) }
    let gadgets = try CallGadgets(in: target, memory: memory)
    let maps: [MapsEntry]
    do throws(KernelError) { maps = try target.maps() } catch { throw .kernel(error) }
    let page = Self.freePage(avoiding: ranges + maps.map(\.range))
    _ = try Self.call(
      child, at: gadgets.systemCall, Self.mmapNumber,
      [page.start, pageBytes, 5, UInt64(MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED), .max, 0])
    try Self.plantInstruction(memory, at: page.start)
    try Self.endRestartableSequences(child, at: page.start)
    _ = try Self.call(child, at: page.start, Self.munmapNumber, [0, page.start])
    _ = try Self.call(
      child, at: page.start, Self.munmapNumber, [page.end, Self.addressLimit - page.end])
    pid = process.release()
    ownRange = page
    self.memory = memory
  }

  deinit { ChildGuard.end(pid) }

  /// Maps `range` for reading and writing. Nothing may be mapped there yet.
  ///
  /// - Parameters:
  ///   - isShared: MAP_SHARED, else MAP_PRIVATE.
  ///   - descriptor: a file of this process; -1 for anonymous memory.
  ///   - offset: offset in the file (bytes).
  package func map(
    _ range: PageRange, isShared: Bool, descriptor: CInt, offset: UInt64
  ) throws(TraceError) {
    // MAP_FIXED_NOREPLACE, MAP_NORESERVE: reservations of terabytes cost nothing.
    var flags: CInt = (isShared ? MAP_SHARED : MAP_PRIVATE) | 0x10_0000 | 0x4000
    if descriptor < 0 { flags |= MAP_ANONYMOUS }
    _ = try Self.call(
      pid, at: ownRange.start, Self.mmapNumber,
      [
        range.start, range.byteCount, UInt64(CInt(PROT_READ | PROT_WRITE)), UInt64(flags),
        UInt64(bitPattern: Int64(descriptor)), descriptor < 0 ? 0 : offset,
      ])
  }

  /// Gives `range` its final protection (PROT_* bits).
  package func protect(_ range: PageRange, _ protection: UInt32) throws(TraceError) {
    _ = try Self.call(
      pid, at: ownRange.start, Self.mprotectNumber,
      [range.start, range.byteCount, UInt64(protection)])
  }

  /// The kernel writes to the thread's rseq area on the way out of every stop; the area is about to
  /// be unmapped.
  private static func endRestartableSequences(_ pid: Int32, at address: UInt64) throws(TraceError) {
    var configuration = clinux_rseq_configuration()
    guard clinux_ptrace_get_rseq(pid, &configuration) >= 0, configuration.area != 0 else { return }
    let unregister: UInt64 = 1  // RSEQ_FLAG_UNREGISTER
    _ = try call(
      pid, at: address, rseqNumber,
      [
        configuration.area, UInt64(configuration.byte_count), unregister,
        UInt64(configuration.signature),
      ])
  }

  private static func plantInstruction(_ memory: borrowing ProcessMemory, at address: UInt64)
    throws(TraceError)
  {
    var instruction: UInt32 = 0xcc_050f  // syscall; int3
    let failure = withUnsafeBytes(of: &instruction) { bytes -> KernelError? in
      do throws(KernelError) {
        try memory.write(bytes, at: address)
        return nil
      } catch { return error }
    }
    if let failure { throw .kernel(failure) }
  }

  private static func freePage(avoiding ranges: [PageRange]) -> PageRange {
    var candidate = PageRange(start: lowestAddress, pageCount: 1)
    for range in ranges.sorted(by: { $0.start < $1.start }) where range.end > candidate.start {
      // A page of distance, so that no stack guard gap is in the way.
      if range.start >= candidate.end + pageBytes { break }
      candidate = PageRange(start: range.end + pageBytes, pageCount: 1)
    }
    return candidate
  }

  /// Makes the stopped child run one system call.
  private static func call(
    _ pid: Int32, at address: UInt64, _ number: UInt64, _ arguments: [UInt64]
  ) throws(TraceError) -> UInt64 {
    var registers = clinux_registers()
    var result = clinux_ptrace_get_registers(pid, &registers)
    guard result >= 0 else { throw .gone(pid: pid) }
    registers.rip = address
    registers.rax = number
    registers.orig_rax = .max
    let padded = arguments + [UInt64](repeating: 0, count: 6 - arguments.count)
    registers.rdi = padded[0]
    registers.rsi = padded[1]
    registers.rdx = padded[2]
    registers.r10 = padded[3]
    registers.r8 = padded[4]
    registers.r9 = padded[5]
    result = clinux_ptrace_set_registers(pid, &registers)
    for _ in 0..<2 {  // to the call's entry, to its exit
      if result >= 0 { result = clinux_ptrace_syscall(pid, 0) }
      var status: CInt = 0
      if result >= 0 { result = clinux_wait(pid, &status) }
      // Any other stop than a system call's is a signal: the child cannot go on.
      guard result >= 0, status & 0xff == 0x7f, status >> 8 == SIGTRAP else {
        throw .gone(pid: pid)
      }
    }
    result = clinux_ptrace_get_registers(pid, &registers)
    guard result >= 0 else { throw .gone(pid: pid) }
    let value = Int64(bitPattern: registers.rax)
    if value < 0, value > -4096 {
      let names = [
        rseqNumber: "rseq", mmapNumber: "mmap", mprotectNumber: "mprotect", munmapNumber: "munmap",
      ]
      throw .kernel(
        KernelError(
          call: names[number] ?? "syscall",
          subject: "scratch process at \(hexAddress(arguments[0]))",
          errno: Errno(rawValue: CInt(-value))))
    }
    return registers.rax
  }
}

/// Ends a child that did not become a scratch process.
private struct ChildGuard: ~Copyable {
  private let pid: Int32

  init(pid: Int32) { self.pid = pid }

  deinit { Self.end(pid) }

  consuming func release() -> Int32 {
    let pid = self.pid
    discard self
    return pid
  }

  static func end(_ pid: Int32) {
    _ = kill(pid, SIGKILL)
    var status: CInt = 0
    // The first report may still be a ptrace stop.
    while clinux_wait(pid, &status) == pid, status & 0xff == 0x7f {}
  }
}
