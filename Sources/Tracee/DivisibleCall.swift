internal import Kernel

/// System calls that return what they have done so far when a stop comes in the midst of them: a
/// blocking write of many bytes returns fewer. The kernel does not restart those, and no tracer can.
enum DivisibleCall {
  /// write, pwrite64, writev, sendfile, sendto, sendmsg, splice, tee, vmsplice, pwritev, recvmmsg,
  /// sendmmsg, copy_file_range, pwritev2.
  private static let numbers: Set<UInt64> = [
    1, 18, 20, 40, 44, 46, 275, 276, 278, 296, 299, 307, 326, 328,
  ]
  private static let receiveFrom: UInt64 = 45
  private static let receiveMessage: UInt64 = 47
  private static let waitForAll: UInt64 = 0x100  // MSG_WAITALL

  /// What a stop would do to a thread, the least first.
  enum Risk: Int {
    /// It sleeps in a call that can be run again, or ends for good.
    case none
    /// It runs, maybe in such a call.
    case unknown
    /// It sleeps in such a call.
    case divides
  }

  /// What a stop would do to thread `tid`, as far as `/proc` tells.
  static func risk(to tid: Int32, of target: borrowing TargetProcess) -> Risk {
    guard let bytes = try? target.read("task/\(tid)/syscall") else { return .unknown }
    // "running", or: number, six arguments, stack pointer, instruction pointer.
    let words = String(decoding: bytes, as: UTF8.self).split(separator: " ")
    guard words.count == 9, let number = UInt64(words[0]) else { return .unknown }
    func argument(_ index: Int) -> UInt64 { UInt64(words[1 + index].dropFirst(2), radix: 16) ?? 0 }
    let divides =
      switch number {
      case receiveFrom: argument(3) & waitForAll != 0
      case receiveMessage: argument(2) & waitForAll != 0
      default: numbers.contains(number)
      }
    return divides ? .divides : .none
  }
}
