internal import Kernel

/// Memory of the target for a signal frame, which nobody uses while the frame is there.
///
///     [stack]  high   the first thread's frames, down to its stack pointer
///                     the red zone, and `clearance`
///                     ... once used, or never
///              low    the frame: as far down as the mapping goes
///              below  free; the kernel grows the stack into it
///
/// Below the stack pointer of any other stack there may be no room: coroutines and Go routines have
/// stacks of a few kilobytes, with somebody else's memory underneath.
enum FrameArea {
  /// Distance kept from a stack pointer (bytes).
  private static let clearance: UInt64 = 32 * 1024
  /// How far the stack is grown where its lowest bytes are in use (bytes). More than a frame and
  /// the clearance, so that the next attach finds room.
  private static let growth: UInt64 = 128 * 1024

  /// The address of `byteCount` bytes; nil if the first thread's stack is not to be found or does
  /// not grow.
  ///
  /// - Parameters:
  ///   - isFirstThread: whether the stopped thread is the process's first, so that nobody uses
  ///     `[stack]` now.
  ///   - stackPointer: the stopped thread's.
  static func find(
    _ target: borrowing TargetProcess, _ memory: borrowing ProcessMemory, isFirstThread: Bool,
    stackPointer: UInt64, byteCount: UInt64
  ) throws(TraceError) -> UInt64? {
    let maps: [MapsEntry]
    do throws(KernelError) { maps = try target.maps() } catch { throw .kernel(error) }
    guard let stack = maps.first(where: { $0.path == "[stack]" }), stack.protection & 3 == 3 else {
      return nil
    }
    let start = stack.range.start
    let end = start + byteCount
    let isOnIt = stackPointer >= start && stackPointer < stack.range.end
    let hasRoom = end <= stack.range.end && !(isOnIt && stackPointer < end + clearance)
    if hasRoom, isFirstThread && isOnIt || isZero(start, Int(byteCount), memory) { return start }
    // Somebody may be here: the first thread runs, or left this stack for another one, or is as
    // deep as it ever was. What lies below was nobody's yet.
    guard start > growth else { return nil }
    return isZero(start - growth, Int(byteCount), memory) ? start - growth : nil
  }

  /// Whether nothing was ever stored there. The kernel grows the stack for this look, too.
  private static func isZero(
    _ address: UInt64, _ byteCount: Int, _ memory: borrowing ProcessMemory
  ) -> Bool {
    var bytes = [UInt8](repeating: 0, count: byteCount)
    return bytes.withUnsafeMutableBytes { buffer in
      do throws(KernelError) { try memory.read(at: address, into: buffer) } catch { return false }
      return buffer.allSatisfy { $0 == 0 }
    }
  }
}
