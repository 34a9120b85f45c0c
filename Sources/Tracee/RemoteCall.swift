internal import CLinux
internal import Glibc
internal import Kernel
internal import SystemPackage

/// System calls run by a stopped thread of the target, on a signal frame that would put the thread
/// back by itself.
struct RemoteCall {
  private static let closeNumber: UInt64 = 3
  private static let milliseconds: UInt64 = 1000
  /// TF of the flags register.
  private static let singleStep: UInt64 = 1 << 8

  let frame: UInt64
  let gadgets: CallGadgets
  let pid: Int32
  let faults: FaultPlan
  /// The registers with which the thread has to go on.
  let saved: clinux_registers
  /// Whether the thread's registers were changed, so that it must be put back.
  private(set) var hasStarted = false

  init(
    frame: UInt64, gadgets: CallGadgets, pid: Int32, saved: clinux_registers, faults: FaultPlan
  ) {
    self.frame = frame
    self.gadgets = gadgets
    self.pid = pid
    self.saved = saved
    self.faults = faults
  }

  /// Makes the thread open a userfaultfd, takes a copy, and makes the thread close its own.
  ///
  /// If memdump is killed between the call's begin and the instant after its end, the thread is left
  /// with a userfaultfd that closes on execve and tracks nothing; killed later, it closes it.
  /// - Parameter makesRoom: whether to raise RLIMIT_NOFILE for the call; nothing else may run.
  /// - Returns: the copy's number in this process, owned by the caller.
  mutating func runUserfaultfd(
    _ thread: borrowing TracedThread, _ target: borrowing TargetProcess, makesRoom: Bool
  ) throws(TraceError) -> CInt {
    let room = makesRoom ? DescriptorRoom.make(in: target) : nil
    let result = Result { () throws(TraceError) in
      try run(
        thread, number: UserfaultfdCall.number, argument: UInt64(UserfaultfdCall.flags),
        inside: .insideCall)
    }
    if let room { DescriptorRoom.giveBack(room, to: target) }
    let number = try result.get()
    guard number >= 0 else {
      throw .remoteCall(pid: pid, name: "userfaultfd", errno: Int32(-number))
    }
    faults.reach(.afterCall)
    // From here on the thread would close it, and put itself back, without us.
    try aim(thread, number: Self.closeNumber, argument: UInt64(number))
    faults.reach(.beforeClose)
    let copy: OwnedDescriptor
    do throws(KernelError) { copy = try target.copyDescriptor(CInt(number)) } catch {
      _ = try run(thread, number: Self.closeNumber, argument: UInt64(number))
      throw .kernel(error)
    }
    // Another thread may have closed what it did not know, and opened something else.
    if Self.isStillOurs(copy, target, CInt(number)) {
      _ = try run(
        thread, number: Self.closeNumber, argument: UInt64(number), inside: .insideClose)
    }
    faults.reach(.afterClose)
    return copy.release()
  }

  private static func isStillOurs(
    _ copy: borrowing OwnedDescriptor, _ target: borrowing TargetProcess, _ number: CInt
  ) -> Bool {
    do throws(KernelError) {
      return try TargetProcess.isOpen(copy, in: target.pid, as: number)
    } catch { return error.errno != .badFileDescriptor }  // without kcmp(2) there is no telling
  }

  /// Restores registers and mask in a stop from which the kernel still restarts the call that the
  /// thread was in (a stop after a system call would not).
  func putBack(_ thread: borrowing TracedThread, signalMask: UInt64) throws(TraceError) {
    faults.reach(.beforePutBack)
    try thread.resumeIntoInterrupt()
    try thread.waitForEventStop(
      deadline: MonotonicClock.now + Self.milliseconds * 1_000_000,
      allowedMilliseconds: Self.milliseconds)
    try thread.setRegisters(saved)
    try thread.setSignalMask(signalMask)
    faults.reach(.afterPutBack)
  }

  /// Lets the thread make this call, and then put itself back, when it goes on.
  private func aim(_ thread: borrowing TracedThread, number: UInt64, argument: UInt64)
    throws(TraceError)
  {
    var registers = saved
    registers.rsp = frame
    registers.rip = gadgets.systemCall
    registers.rax = number
    registers.orig_rax = UInt64.max  // not in a call: nothing for the kernel to restart
    // A thread that steps itself would trap on our instructions, should we die, and SIGTRAP kills
    // it where it is masked. The frame gives the flag back.
    registers.eflags &= ~Self.singleStep
    registers.rdi = argument
    try thread.setRegisters(registers)
  }

  private mutating func run(
    _ thread: borrowing TracedThread, number: UInt64, argument: UInt64,
    inside: FaultPoint? = nil
  ) throws(TraceError) -> Int64 {
    try aim(thread, number: number, argument: argument)
    if !hasStarted {
      hasStarted = true
      faults.reach(.afterRegisters)
      // No handler runs on our frame. The order matters: with the frame in place, the old mask is
      // restored even if this is the last thing that we do.
      try thread.setSignalMask(.max)
      faults.reach(.afterMask)
    }
    let deadline = MonotonicClock.now + Self.milliseconds * 1_000_000
    try thread.runToSystemCallStop(deadline: deadline, allowedMilliseconds: Self.milliseconds)
    if let inside { faults.reach(inside) }
    try thread.runToSystemCallStop(deadline: deadline, allowedMilliseconds: Self.milliseconds)
    let after = try thread.registers()
    guard after.rip == gadgets.systemCall + 2 else {
      throw .noSuitableThread(pid: pid, reason: "it left the injected call")
    }
    return Int64(bitPattern: after.rax)
  }
}
