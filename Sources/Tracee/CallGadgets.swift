internal import CLinux
internal import Kernel

/// Two places in the target's own text on which an injected call runs.
struct CallGadgets: Sendable {
  /// `syscall; ret`.
  let systemCall: UInt64
  /// `mov $15, %rax; syscall`: the return from a signal handler (glibc `__restore_rt`).
  let signalReturn: UInt64

  private static let systemCallBytes: [UInt8] = [0x0f, 0x05, 0xc3]
  private static let signalReturnBytes: [[UInt8]] = [
    [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05],
    [0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05],
  ]

  /// Looks for both in the executable mappings, without stopping the process.
  ///
  /// The C library comes first: it has both, and stays where it is while the process lives.
  init(in target: borrowing TargetProcess, memory: borrowing ProcessMemory) throws(TraceError) {
    let maps: [MapsEntry]
    do throws(KernelError) { maps = try target.maps() } catch { throw .kernel(error) }
    if maps.isEmpty { throw .gone(pid: target.pid) }
    let executable = maps.filter { $0.protection & 5 == 5 && $0.path != "[vsyscall]" }
    let libc = executable.filter { $0.path.contains("/libc") || $0.path.contains("/ld-") }
    let others = executable.filter { entry in !libc.contains(entry) }
    var systemCall: UInt64?
    var signalReturn: UInt64?
    for entry in libc + others {
      var offset: UInt64 = 0
      let windowBytes = 256 * 1024
      while offset < entry.range.byteCount, systemCall == nil || signalReturn == nil {
        let start = entry.range.start + offset
        let text = try Self.read(
          start, byteCount: Int(min(UInt64(windowBytes), entry.range.end - start)), memory: memory)
        if systemCall == nil { systemCall = Self.find([Self.systemCallBytes], in: text, at: start) }
        if signalReturn == nil {
          signalReturn = Self.find(Self.signalReturnBytes, in: text, at: start)
        }
        // Windows overlap by the longest pattern.
        offset += UInt64(windowBytes) - 16
      }
      if systemCall != nil, signalReturn != nil { break }
    }
    guard let systemCall, let signalReturn else { throw .noGadget(pid: target.pid) }
    self.systemCall = systemCall
    self.signalReturn = signalReturn
  }

  /// Whether both still stand there; asked with the thread stopped.
  func areIntact(in memory: borrowing ProcessMemory) -> Bool {
    do throws(TraceError) {
      let call = try Self.read(systemCall, byteCount: 3, memory: memory)
      let back = try Self.read(signalReturn, byteCount: 9, memory: memory)
      return call == Self.systemCallBytes
        && Self.signalReturnBytes.contains { Array(back.prefix($0.count)) == $0 }
    } catch { return false }
  }

  private static func read(_ address: UInt64, byteCount: Int, memory: borrowing ProcessMemory)
    throws(TraceError) -> [UInt8]
  {
    var bytes = [UInt8](repeating: 0, count: byteCount)
    var failure: KernelError?
    bytes.withUnsafeMutableBytes { buffer in
      do throws(KernelError) { try memory.read(at: address, into: buffer) } catch {
        failure = error
      }
    }
    if let failure { throw .kernel(failure) }
    return bytes
  }

  private static func find(_ patterns: [[UInt8]], in text: [UInt8], at start: UInt64) -> UInt64? {
    text.withUnsafeBytes { bytes in
      for pattern in patterns {
        let offset = pattern.withUnsafeBytes { wanted in
          clinux_find(bytes.baseAddress, bytes.count, wanted.baseAddress, wanted.count)
        }
        if offset >= 0 { return start + UInt64(offset) }
      }
      return nil
    }
  }
}
