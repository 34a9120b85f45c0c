internal import SystemPackage

/// The fields of `/proc/PID/stat` (proc_pid_stat(5)) that memdump asks for. Addresses in bytes;
/// the kernel prints them as 0 to those who may not trace the process.
package struct ProcessStat: Sendable {
  /// R, S, D, T, t, Z, X, I.
  package let state: Character
  /// The parent's process id.
  package let parent: Int32
  /// PF_* flags (linux/sched.h).
  package let flags: UInt64
  /// Page faults that needed no disk, of all threads so far.
  package let minorFaults: UInt64
  /// Clock ticks from boot to the start.
  package let startTicks: UInt64
  package let codeStart: UInt64
  package let codeEnd: UInt64
  package let stackStart: UInt64
  package let dataStart: UInt64
  package let dataEnd: UInt64
  package let breakStart: UInt64
  package let argumentsStart: UInt64
  package let argumentsEnd: UInt64
  package let environmentStart: UInt64
  package let environmentEnd: UInt64

  /// Whether this is a thread of the kernel's own (PF_KTHREAD): it has no memory.
  package var isKernelThread: Bool { flags & 0x0020_0000 != 0 }

  /// Whether the process is on its way out (PF_EXITING): its memory may be gone before its pidfd
  /// says so.
  package var isExiting: Bool { flags & 0x4 != 0 || state == "Z" || state == "X" }

  /// Parses the one line of `/proc/PID/stat`.
  ///
  /// - Throws: `KernelError` with EINVAL if it is not one.
  package init(parsing bytes: [UInt8]) throws(KernelError) {
    // The command name stands in parentheses and may hold any byte, parentheses included.
    guard let close = bytes.lastIndex(of: UInt8(ascii: ")")) else { throw Self.malformed }
    let fields = bytes[(close + 1)...].split(whereSeparator: { $0 == 0x20 || $0 == 0x0a })
    // fields[0] is field 3 of the manual page.
    func number(_ field: Int) -> UInt64 {
      guard fields.indices.contains(field - 3) else { return 0 }
      return UInt64(String(decoding: fields[field - 3], as: UTF8.self)) ?? 0
    }
    guard fields.count >= 20, let letter = fields[0].first else { throw Self.malformed }
    state = Character(UnicodeScalar(letter))
    parent = Int32(truncatingIfNeeded: number(4))
    flags = number(9)
    minorFaults = number(10)
    startTicks = number(22)
    codeStart = number(26)
    codeEnd = number(27)
    stackStart = number(28)
    dataStart = number(45)
    dataEnd = number(46)
    breakStart = number(47)
    argumentsStart = number(48)
    argumentsEnd = number(49)
    environmentStart = number(50)
    environmentEnd = number(51)
  }

  private static var malformed: KernelError {
    KernelError(call: "read", subject: "/proc/PID/stat", errno: .invalidArgument)
  }
}
