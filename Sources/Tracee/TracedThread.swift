internal import CLinux
internal import Glibc
internal import Kernel
internal import SystemPackage

/// A thread that this OS thread has seized. Dropping it detaches: the thread runs on (or stays in
/// the group-stop that it was in). If the tracing OS thread ends, the kernel detaches.
struct TracedThread: ~Copyable {
  /// Reported stop: PTRACE_EVENT_STOP is 128 in the status' third byte.
  private static let eventStop: CInt = 128
  /// ERESTARTNOHAND (linux/errno.h).
  private static let restartUnlessHandled: Int64 = 514

  let tid: Int32
  private let tracer = clinux_gettid()

  /// Attaches to `tid` without stopping it.
  init(seizing tid: Int32, options: UInt64 = 0) throws(TraceError) {
    let result = clinux_ptrace_seize(tid, options)
    if result == -ESRCH { throw .gone(pid: tid) }
    if result == -EPERM, let tracer = Self.tracer(of: tid), tracer != 0 {
      throw .alreadyTraced(pid: tid, tracer: tracer)
    }
    if result < 0 {
      throw .kernel(
        KernelError(
          call: "ptrace(PTRACE_SEIZE)", subject: "thread \(tid)", errno: Errno(rawValue: -result)))
    }
    self.tid = tid
  }

  // Works on a stopped thread only. One that never stopped is detached when this OS thread ends.
  deinit { _ = clinux_ptrace_detach(tid, 0) }

  /// Asks the thread to stop; `waitForEventStop` tells when it has.
  borrowing func interrupt() throws(TraceError) {
    try check("ptrace(PTRACE_INTERRUPT)", clinux_ptrace_interrupt(tid))
  }

  /// Why a thread stands still.
  enum EventStop {
    /// Because `interrupt` asked for it.
    case interrupted
    /// Because job control stopped the process (SIGSTOP), with or without us.
    case jobControl
  }

  /// Waits for the stop that `interrupt` asked for, delivering signals that come in between.
  ///
  /// - Parameter deadline: CLOCK_MONOTONIC (ns) after which to give up.
  @discardableResult borrowing func waitForEventStop(deadline: UInt64, allowedMilliseconds: UInt64)
    throws(TraceError) -> EventStop
  {
    while true {
      let status = try waitForAnyStop(deadline: deadline, allowedMilliseconds: allowedMilliseconds)
      if status >> 16 == Self.eventStop {
        return (status >> 8) & 0xff == SIGTRAP ? .interrupted : .jobControl
      }
      // A signal came first. Delivered now it is handled before the stop, as if we were not here.
      let signal = status >> 16 == 0 ? (status >> 8) & 0xff : 0
      try check("ptrace(PTRACE_CONT)", clinux_ptrace_continue(tid, signal))
    }
  }

  /// Runs the thread to its next system call entry or exit.
  borrowing func runToSystemCallStop(deadline: UInt64, allowedMilliseconds: UInt64)
    throws(TraceError)
  {
    var signal: CInt = 0
    while true {
      try check("ptrace(PTRACE_SYSCALL)", clinux_ptrace_syscall(tid, signal))
      let status = try waitForAnyStop(deadline: deadline, allowedMilliseconds: allowedMilliseconds)
      let stop = (status >> 8) & 0xff
      if stop == SIGTRAP | 0x80 { return }
      // Either a stop that job control wants, which has not run the call yet, or a signal that
      // cannot be masked (SIGSTOP), which is passed on.
      signal = status >> 16 == 0 ? stop : 0
    }
  }

  /// Lets the thread run until the interrupt that is already asked for stops it.
  borrowing func resumeIntoInterrupt() throws(TraceError) {
    try interrupt()
    try check("ptrace(PTRACE_CONT)", clinux_ptrace_continue(tid, 0))
  }

  borrowing func registers() throws(TraceError) -> clinux_registers {
    var registers = clinux_registers()
    try check("ptrace(PTRACE_GETREGS)", clinux_ptrace_get_registers(tid, &registers))
    return registers
  }

  borrowing func setRegisters(_ registers: clinux_registers) throws(TraceError) {
    var registers = registers
    try check("ptrace(PTRACE_SETREGS)", clinux_ptrace_set_registers(tid, &registers))
  }

  /// The vector and floating-point state in XSAVE layout (NT_X86_XSTATE).
  borrowing func extendedState() throws(TraceError) -> [UInt8] {
    // AMX takes 8 KiB of it; a thread without it far less.
    var bytes = [UInt8](repeating: 0, count: 16 * 1024)
    let count = clinux_ptrace_get_xstate(tid, &bytes, bytes.count)
    try check("ptrace(PTRACE_GETREGSET)", CInt(clamping: count))
    return Array(bytes[..<count])
  }

  borrowing func signalMask() throws(TraceError) -> UInt64 {
    var mask: UInt64 = 0
    try check("ptrace(PTRACE_GETSIGMASK)", clinux_ptrace_get_signal_mask(tid, &mask))
    return mask
  }

  borrowing func setSignalMask(_ mask: UInt64) throws(TraceError) {
    try check("ptrace(PTRACE_SETSIGMASK)", clinux_ptrace_set_signal_mask(tid, mask))
  }

  /// Address of the thread's `struct rseq`; 0 if it registered none or the kernel does not tell.
  borrowing func rseqArea() -> UInt64 {
    var configuration = clinux_rseq_configuration()
    return clinux_ptrace_get_rseq(tid, &configuration) < 0 ? 0 : configuration.area
  }

  /// Makes the stop itself invisible: a call that the stop made return EINTR is run again.
  ///
  /// epoll_wait, recv with a time-out, io_uring_enter, io_getevents, sigtimedwait and semop are not
  /// restarted by the kernel: they return EINTR. Here that becomes ERESTARTNOHAND, which leaves the
  /// decision to the kernel when the thread goes on: if a handler is to run by then, EINTR is that
  /// signal's, and the call returns it; if not, the call is run again. A relative time-out starts
  /// over. A stop by job control ends these calls with or without us, and is not hidden.
  ///
  /// - Returns: the registers with which the thread has to go on.
  @discardableResult borrowing func hideInterruption(_ stop: EventStop) throws(TraceError)
    -> clinux_registers
  {
    var registers = try self.registers()
    let inSystemCall = Int64(bitPattern: registers.orig_rax) >= 0
    guard stop == .interrupted, inSystemCall, Int64(bitPattern: registers.rax) == -Int64(EINTR)
    else { return registers }
    registers.rax = UInt64(bitPattern: -Self.restartUnlessHandled)
    try setRegisters(registers)
    return registers
  }

  private borrowing func waitForAnyStop(deadline: UInt64, allowedMilliseconds: UInt64)
    throws(TraceError) -> CInt
  {
    precondition(clinux_gettid() == tracer, "ptrace belongs to thread \(tracer)")
    var looks = 0
    while true {
      var status: CInt = 0
      let result = clinux_wait_poll(tid, &status)
      if result == -EINTR { continue }
      if result < 0 { throw .gone(pid: tid) }
      if result == tid {
        if status & 0xff == 0x7f { return status }
        throw .gone(pid: tid)
      }
      if MonotonicClock.now > deadline {
        throw .notStopping(tid: tid, milliseconds: allowedMilliseconds)
      }
      // Most threads stop within microseconds. There is no way to wait with a deadline.
      looks += 1
      if looks > 20 { MonotonicClock.pause(nanoseconds: 20_000) } else { sched_yield() }
    }
  }

  private borrowing func check(_ call: StaticString, _ result: CInt) throws(TraceError) {
    if result >= 0 { return }
    if result == -ESRCH { throw .gone(pid: tid) }
    throw .kernel(
      KernelError(
        call: "\(call)", subject: "thread \(tid)", errno: Errno(rawValue: -result)))
  }

  private static func tracer(of tid: Int32) -> Int32? {
    do throws(KernelError) {
      return try TargetProcess(pid: tid).status().tracer
    } catch { return nil }
  }
}

@available(*, unavailable) extension TracedThread: Sendable {}
