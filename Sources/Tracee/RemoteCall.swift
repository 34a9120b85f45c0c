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
  /// - Parameter roomGuardian: if given, RLIMIT_NOFILE is raised for the call; nothing else may run.
  /// - Returns: the copy's number in this process, owned by the caller.
  mutating func runUserfaultfd(
    _ thread: borrowing TracedThread, _ target: borrowing TargetProcess,
    roomGuardian: ProcessGuardian?
  ) throws(TraceError) -> CInt {
    try enter(
      thread, number: UserfaultfdCall.number, argument: UInt64(UserfaultfdCall.flags),
      inside: .insideCall)
    // Not before: in the call itself the kernel looks at the limit.
    var room: DescriptorRoom?
    if let roomGuardian {
      room = DescriptorRoom(in: target, guardian: roomGuardian)
      faults.reach(.withRoom)
    }
    let result = Result { () throws(TraceError) in try leave(thread) }
    room?.giveBack(to: target)
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
    try enter(thread, number: number, argument: argument, inside: inside)
    return try leave(thread)
  }

  /// Runs the thread to where the call begins.
  private mutating func enter(
    _ thread: borrowing TracedThread, number: UInt64, argument: UInt64, inside: FaultPoint?
  ) throws(TraceError) {
    try aim(thread, number: number, argument: argument)
    if !hasStarted {
      hasStarted = true
      faults.reach(.afterRegisters)
      // No handler runs on our frame. The order matters: with the frame in place, the old mask is
      // restored even if this is the last thing that we do.
      try thread.setSignalMask(.max)
      faults.reach(.afterMask)
    }
    try runToStop(thread)
    if let inside { faults.reach(inside) }
  }

  /// Runs the thread to the call's end.
  private func leave(_ thread: borrowing TracedThread) throws(TraceError) -> Int64 {
    try runToStop(thread)
    let after = try thread.registers()
    guard after.rip == gadgets.systemCall + 2 else {
      throw .noSuitableThread(pid: pid, reason: "it left the injected call")
    }
    return Int64(bitPattern: after.rax)
  }

  private func runToStop(_ thread: borrowing TracedThread) throws(TraceError) {
    try thread.runToSystemCallStop(
      deadline: MonotonicClock.now + Self.milliseconds * 1_000_000,
      allowedMilliseconds: Self.milliseconds)
  }
}
