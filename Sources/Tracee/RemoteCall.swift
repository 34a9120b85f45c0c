internal import CLinux
internal import Glibc
internal import Kernel

/// System calls run by a stopped thread of the target, on a signal frame that would put the thread
/// back by itself.
struct RemoteCall {
  private static let closeNumber: UInt64 = 3
  private static let milliseconds: UInt64 = 1000

  let frame: UInt64
  let gadgets: CallGadgets
  let pid: Int32
  /// The registers with which the thread has to go on.
  let saved: clinux_registers
  /// Whether the thread's registers were changed, so that it must be put back.
  private(set) var hasStarted = false

  init(frame: UInt64, gadgets: CallGadgets, pid: Int32, saved: clinux_registers) {
    self.frame = frame
    self.gadgets = gadgets
    self.pid = pid
    self.saved = saved
  }

  /// Makes the thread open a userfaultfd, takes a copy, and makes the thread close its own.
  ///
  /// - Returns: the copy's number in this process, owned by the caller.
  mutating func runUserfaultfd(
    _ thread: borrowing TracedThread, _ target: borrowing TargetProcess
  ) throws(TraceError) -> CInt {
    let number = try run(
      thread, number: UserfaultfdCall.number, argument: UInt64(UserfaultfdCall.flags))
    guard number >= 0 else {
      throw .remoteCall(pid: pid, name: "userfaultfd", errno: Int32(-number))
    }
    let copy: Result<CInt, KernelError>
    do throws(KernelError) {
      copy = .success(try target.copyDescriptor(CInt(number)).release())
    } catch { copy = .failure(error) }
    _ = try run(thread, number: Self.closeNumber, argument: UInt64(number))
    switch copy {
    case .success(let number): return number
    case .failure(let error): throw .kernel(error)
    }
  }

  /// Restores registers and mask in a stop from which the kernel still restarts the call that the
  /// thread was in (a stop after a system call would not).
  func putBack(_ thread: borrowing TracedThread, signalMask: UInt64) throws(TraceError) {
    try thread.resumeIntoInterrupt()
    try thread.waitForEventStop(
      deadline: MonotonicClock.now + Self.milliseconds * 1_000_000,
      allowedMilliseconds: Self.milliseconds)
    try thread.setRegisters(saved)
    try thread.setSignalMask(signalMask)
  }

  private mutating func run(
    _ thread: borrowing TracedThread, number: UInt64, argument: UInt64
  ) throws(TraceError) -> Int64 {
    var registers = saved
    registers.rsp = frame
    registers.rip = gadgets.systemCall
    registers.rax = number
    registers.orig_rax = UInt64.max  // not in a call: nothing for the kernel to restart
    registers.rdi = argument
    try thread.setRegisters(registers)
    if !hasStarted {
      hasStarted = true
      // No handler runs on our frame. The order matters: with the frame in place, the old mask is
      // restored even if this is the last thing that we do.
      try thread.setSignalMask(.max)
    }
    let deadline = MonotonicClock.now + Self.milliseconds * 1_000_000
    try thread.runToSystemCallStop(deadline: deadline, allowedMilliseconds: Self.milliseconds)
    try thread.runToSystemCallStop(deadline: deadline, allowedMilliseconds: Self.milliseconds)
    let after = try thread.registers()
    guard after.rip == gadgets.systemCall + 2 else {
      throw .noSuitableThread(pid: pid, reason: "it left the injected call")
    }
    return Int64(bitPattern: after.rax)
  }
}
