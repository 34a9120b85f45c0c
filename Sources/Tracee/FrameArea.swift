internal import Kernel

/// Memory of the target for a signal frame, which nobody uses while the frame is there.
///
///     the first thread, on [stack]        any other, on the stack that its C library made for it
///
///     high  its frames                    high  the thread's control block
///           the red zone, `clearance`           its frames
///           ... once used, or never             the red zone
///     low   the frame                           the frame, where a signal's would be
///     below free; the kernel grows the    low   free
///           stack into it
///
/// Below the stack pointer of any other stack there may be no room: coroutines and Go routines have
/// stacks of a few kilobytes, with somebody else's memory underneath. The first thread on such a stack
/// gets a place on [stack] all the same, deeper by `growth` than anybody ever was: what rests there has
/// no thread to run on. Another thread gets that if everybody else stands still: the first one, or who
/// runs on its stack, may get there.
struct FrameArea {
  /// Distance kept from the first thread's stack pointer (bytes).
  private static let clearance: UInt64 = 32 * 1024
  /// How far the stack is grown where its lowest bytes are in use (bytes). More than a frame and
  /// the clearance, so that the next attach finds room.
  private static let growth: UInt64 = 128 * 1024
  /// What a leaf function may use below the stack pointer (System V ABI, AMD64: bytes).
  private static let redZone: UInt64 = 128
  /// How deep a thread's own stack may be used (bytes): all of that is read.
  private static let depthLimit: UInt64 = 256 * 1024

  /// The first byte.
  let address: UInt64
  /// Whether a thread that runs could come to use it: all others have to stand still.
  let isShared: Bool

  /// A place for `byteCount` bytes; nil if the thread is on no stack of its own, and the first
  /// thread's stack is not to be found or does not grow.
  ///
  /// - Parameters:
  ///   - isFirstThread: whether the stopped thread is the process's first, which owns `[stack]`.
  ///   - stackPointer: the stopped thread's.
  ///   - controlBlock: its FS base, where a C library keeps a thread's control block: at the high
  ///     end of the stack that it has made for the thread (glibc, musl).
  static func find(
    _ target: borrowing TargetProcess, _ memory: borrowing ProcessMemory, isFirstThread: Bool,
    stackPointer: UInt64, controlBlock: UInt64, byteCount: UInt64
  ) throws(TraceError) -> FrameArea? {
    let maps: [MapsEntry]
    do throws(KernelError) { maps = try target.maps() } catch { throw .kernel(error) }
    let stack = maps.first { $0.path == "[stack]" && $0.protection & 3 == 3 }
    if let stack, isFirstThread, stack.range.contains(stackPointer) {
      let start = stack.range.start
      if start + byteCount + clearance <= stackPointer {
        return FrameArea(address: start, isShared: false)
      }
      // It is as deep as it ever was. What lies below was nobody's yet.
      return growsBelow(start, byteCount, memory)
        ? FrameArea(address: start - growth, isShared: false) : nil
    }
    // The first thread's control block is no part of a stack: one that lies below it is a coroutine's.
    if !isFirstThread,
      let address = onOwnStack(
        maps, memory, stackPointer: stackPointer, controlBlock: controlBlock, byteCount: byteCount)
    {
      return FrameArea(address: address, isShared: false)
    }
    guard let stack else { return nil }
    let start = stack.range.start
    let isUnused = stack.range.byteCount > growth && isZero(start, Int(growth), memory)
    if !isUnused && !growsBelow(start, byteCount, memory) { return nil }
    return FrameArea(address: isUnused ? start : start - growth, isShared: !isFirstThread)
  }

  /// Where the kernel would put the frame of a signal.
  private static func onOwnStack(
    _ maps: [MapsEntry], _ memory: borrowing ProcessMemory, stackPointer: UInt64,
    controlBlock: UInt64, byteCount: UInt64
  ) -> UInt64? {
    guard let vma = maps.first(where: { $0.range.contains(stackPointer) }), !vma.isShared,
      vma.path.isEmpty || vma.path.hasPrefix("[anon:"),
      stackPointer < controlBlock, controlBlock - stackPointer <= depthLimit,
      controlBlock + 8 <= vma.range.end, stackPointer - vma.range.start >= redZone + byteCount
    else { return nil }
    let address = stackPointer - redZone - byteCount
    // Read as a whole, since a guard need not be a mapping of its own (MADV_GUARD_INSTALL). A control
    // block begins with its own address (ELF Handling For Thread-Local Storage, x86-64); that of a Go
    // thread does not, and lies in the heap, as the stacks of its routines do.
    let count = Int(controlBlock + 8 - address)
    guard let bytes = bytes(at: address, count, memory) else { return nil }
    let first = bytes[(count - 8)...].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    return first == controlBlock ? address : nil
  }

  /// Whether the stack that begins at `start` grows by `growth` for this look, and nothing was there.
  private static func growsBelow(
    _ start: UInt64, _ byteCount: UInt64, _ memory: borrowing ProcessMemory
  ) -> Bool {
    start > growth && isZero(start - growth, Int(byteCount), memory)
  }

  /// Whether nothing was ever stored there. The kernel grows the stack for this look, too.
  private static func isZero(
    _ address: UInt64, _ byteCount: Int, _ memory: borrowing ProcessMemory
  ) -> Bool {
    bytes(at: address, byteCount, memory)?.allSatisfy { $0 == 0 } ?? false
  }

  private static func bytes(
    at address: UInt64, _ byteCount: Int, _ memory: borrowing ProcessMemory
  ) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: byteCount)
    let isRead = bytes.withUnsafeMutableBytes { buffer in
      do throws(KernelError) { try memory.read(at: address, into: buffer) } catch { return false }
      return true
    }
    return isRead ? bytes : nil
  }
}
