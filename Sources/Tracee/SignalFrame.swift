internal import CLinux

/// A signal frame (`struct rt_sigframe`, arch/x86/include/asm/sigframe.h) that puts a thread back.
///
/// The injected call runs with the stack pointer on this frame and returns through its first word
/// into rt_sigreturn, which loads all registers, the vector state and the signal mask from here:
/// should the tracer die at any instant, the thread restores itself.
///
///     address -> pretcode: address of rt_sigreturn       8 bytes
///                ucontext: flags, link, alternate stack  40
///                sigcontext: general registers           256
///                signal mask                             8
///                siginfo (unused)                        128
///     64-aligned ->  XSAVE area, closed by its magic number
struct SignalFrame {
  private static let frameBytes: UInt64 = 8 + 40 + 256 + 8 + 128
  private static let sigcontext = 48
  private static let magicStart: UInt32 = 0x4650_5853  // FP_XSTATE_MAGIC1
  private static let magicEnd: UInt32 = 0x4650_5845  // FP_XSTATE_MAGIC2

  /// Where the frame goes; the stack pointer of the injected call.
  let address: UInt64
  /// The frame and, after a gap, the XSAVE area: all bytes from `address` on.
  let bytes: [UInt8]

  /// Bytes that a frame for this XSAVE state needs at most.
  static func byteLimit(extendedStateBytes: Int) -> UInt64 {
    frameBytes + UInt64(extendedStateBytes) + 4 + 64 + 16 + 16
  }

  /// A frame in the memory from `area` on that restores the given state.
  ///
  /// - Parameter registers: as the thread is to go on with them; a call that the kernel would
  ///   restart is set to run again, because rt_sigreturn forgets about restarting.
  init(
    in area: UInt64, registers: clinux_registers, extendedState: [UInt8], signalMask: UInt64,
    signalReturn: UInt64
  ) {
    // After the return the stack must be 16-aligned at address + 8, as the kernel leaves it.
    address = ((area + 15) & ~15) + 8
    let stateAddress = (address + Self.frameBytes + 63) & ~63
    let stateOffset = Int(stateAddress - address)
    var bytes = [UInt8](repeating: 0, count: stateOffset + extendedState.count + 4)
    func put(_ value: UInt64, _ offset: Int, _ count: Int = 8) {
      for index in 0..<count {
        bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index))
      }
    }
    put(signalReturn, 0)
    put(7, 8)  // UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
    // Flags that no alternate stack has: the kernel then leaves the thread's own alone.
    put(0x7ead, 32, 4)
    let resumed = Self.restarting(registers)
    let context: [UInt64] = [
      resumed.r8, resumed.r9, resumed.r10, resumed.r11, resumed.r12, resumed.r13, resumed.r14,
      resumed.r15, resumed.rdi, resumed.rsi, resumed.rbp, resumed.rbx, resumed.rdx, resumed.rax,
      resumed.rcx, resumed.rsp, resumed.rip, resumed.eflags,
      resumed.cs & 0xffff | resumed.ss << 48,
      0, 0, 0, 0,  // err, trapno, oldmask, cr2
      stateAddress,
    ]
    for (index, value) in context.enumerated() { put(value, Self.sigcontext + 8 * index) }
    put(signalMask, Self.sigcontext + 256)
    bytes.replaceSubrange(stateOffset..<(stateOffset + extendedState.count), with: extendedState)
    // struct _fpx_sw_bytes at offset 464; ptrace leaves the enabled features (XCR0) there.
    let software = stateOffset + 464
    var features: UInt64 = 0
    for index in 0..<8 { features |= UInt64(bytes[software + index]) << (8 * index) }
    for index in 0..<48 { bytes[software + index] = 0 }
    put(UInt64(Self.magicStart), software, 4)
    put(UInt64(extendedState.count + 4), software + 4, 4)
    put(features, software + 8)
    put(UInt64(extendedState.count), software + 16, 4)
    put(UInt64(Self.magicEnd), stateOffset + extendedState.count, 4)
    self.bytes = bytes
  }

  /// ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK (linux/errno.h).
  private static let restartCodes: Set<Int64> = [-512, -513, -514, -516]

  private static func restarting(_ registers: clinux_registers) -> clinux_registers {
    guard Int64(bitPattern: registers.orig_rax) >= 0,
      restartCodes.contains(Int64(bitPattern: registers.rax))
    else { return registers }
    var resumed = registers
    resumed.rax = registers.orig_rax
    resumed.rip -= 2
    return resumed
  }
}
