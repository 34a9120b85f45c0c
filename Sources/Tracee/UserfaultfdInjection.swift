internal import CLinux
internal import Glibc
package import Kernel

/// Gets a userfaultfd of another process: one thread of it is stopped once and makes the call.
package enum UserfaultfdInjection {
  /// A userfaultfd of the target, and what it cost.
  package struct Outcome: ~Copyable, Sendable {
    /// The target's userfaultfd; the target's own copy is closed.
    package let descriptor: OwnedDescriptor
    /// How long the one thread stood still (ns).
    package let stoppedNanoseconds: UInt64

    /// Gives up the parts.
    package consuming func take() -> OwnedDescriptor { descriptor }
  }

  private static let stopMilliseconds: UInt64 = 200
  /// Distance kept from a stack pointer (bytes); also what the frame may take.
  private static let stackClearance: UInt64 = 32 * 1024

  /// Stops one thread, injects userfaultfd(2), takes the descriptor and puts the thread back.
  ///
  /// Runs on an OS thread of its own: if the target cannot be stopped in time, that thread ends and
  /// the kernel detaches everything. Needs the right to trace the target.
  package static func inject(into target: borrowing TargetProcess) throws(TraceError) -> Outcome {
    let pid = target.pid
    let startTicks = target.startTicks
    let result: Result<(CInt, UInt64), TraceError>
    do throws(KernelError) {
      result = try OSThread.run(name: "memdump-attach") { () throws(TraceError) in
        let own: TargetProcess
        do throws(KernelError) { own = try TargetProcess(pid: pid) } catch { throw .gone(pid: pid) }
        if own.startTicks != startTicks { throw .gone(pid: pid) }
        let outcome = try attempt(own)
        let nanoseconds = outcome.stoppedNanoseconds
        return (outcome.take().release(), nanoseconds)
      }
    } catch { throw .kernel(error) }
    let (number, nanoseconds) = try result.get()
    return Outcome(
      descriptor: OwnedDescriptor(owning: number), stoppedNanoseconds: nanoseconds)
  }

  private static func attempt(_ target: borrowing TargetProcess) throws(TraceError) -> Outcome {
    let memory: ProcessMemory
    do throws(KernelError) {
      memory = ProcessMemory(file: try target.open("mem", writable: true))
    } catch { throw .kernel(error) }
    let gadgets = try CallGadgets(in: target, memory: memory)
    let suspendsSeccomp: Bool
    do throws(KernelError) { suspendsSeccomp = try target.status().seccompMode != 0 } catch {
      throw .gone(pid: target.pid)
    }
    var lastReason = "no thread is in a state to be stopped"
    for round in 0..<20 {
      if round > 0 { MonotonicClock.pause(nanoseconds: 5_000_000) }
      for tid in try candidates(target) {
        let thread: TracedThread
        do throws(TraceError) {
          thread = try seize(tid, suspendingSeccomp: suspendsSeccomp)
        } catch {
          if case .gone = error { continue }
          throw error
        }
        let began = MonotonicClock.now
        try thread.interrupt()
        do throws(TraceError) {
          try thread.waitForEventStop(
            deadline: began + stopMilliseconds * 1_000_000, allowedMilliseconds: stopMilliseconds)
        } catch {
          if case .gone = error { continue }
          throw error
        }
        switch try callInStoppedThread(thread, target, memory, gadgets) {
        case .done(let number):
          return Outcome(
            descriptor: OwnedDescriptor(owning: number),
            stoppedNanoseconds: MonotonicClock.now - began)
        case .unsuitable(let reason): lastReason = reason
        }
      }
    }
    throw .noSuitableThread(pid: target.pid, reason: lastReason)
  }

  /// Threads that may be stopped, the first thread first: its stack is the one `[stack]`.
  ///
  /// A thread in state D may wait for a vfork child or for a disk: a stop would wait with it.
  private static func candidates(_ target: borrowing TargetProcess) throws(TraceError) -> [Int32] {
    do throws(KernelError) {
      var result: [Int32] = []
      for tid in try target.threadIDs() {
        let stat: ProcessStat
        do throws(KernelError) {
          stat = try ProcessStat(parsing: try target.read("task/\(tid)/stat"))
        } catch { continue }
        if !["D", "Z", "X"].contains(stat.state) { result.append(tid) }
      }
      return result.sorted { ($0 == target.pid ? 0 : 1, $0) < ($1 == target.pid ? 0 : 1, $1) }
    } catch { throw .gone(pid: target.pid) }
  }

  private static func seize(_ tid: Int32, suspendingSeccomp: Bool) throws(TraceError)
    -> TracedThread
  {
    let systemCallStops: UInt64 = 1  // PTRACE_O_TRACESYSGOOD
    let suspendSeccomp: UInt64 = 1 << 21  // PTRACE_O_SUSPEND_SECCOMP
    return try TracedThread(
      seizing: tid, options: systemCallStops | (suspendingSeccomp ? suspendSeccomp : 0))
  }

  private enum CallResult {
    case done(CInt)
    case unsuitable(String)
  }

  private static func callInStoppedThread(
    _ thread: borrowing TracedThread, _ target: borrowing TargetProcess,
    _ memory: borrowing ProcessMemory, _ gadgets: CallGadgets
  ) throws(TraceError) -> CallResult {
    let saved = try thread.hideInterruption(target)
    if saved.cs != 0x33 { return .unsuitable("it runs 32-bit code") }
    if isInRestartableSequence(thread, memory) {
      return .unsuitable("it is in a restartable sequence (rseq)")
    }
    guard gadgets.areIntact(in: memory) else { return .unsuitable("its text changed") }
    let mask = try thread.signalMask()
    let state = try thread.extendedState()
    let needed = SignalFrame.byteLimit(extendedStateBytes: state.count)
    guard let area = try frameArea(target, stackPointer: saved.rsp, byteCount: needed) else {
      return .unsuitable("its stack has no room")
    }
    let frame = SignalFrame(
      in: area, registers: saved, extendedState: state, signalMask: mask,
      signalReturn: gadgets.signalReturn)
    var overwritten = [UInt8](repeating: 0, count: frame.bytes.count)
    try access(memory, frame.address, &overwritten, write: false)
    var frameBytes = frame.bytes
    try access(memory, frame.address, &frameBytes, write: true)

    var call = RemoteCall(frame: frame.address, gadgets: gadgets, pid: target.pid, saved: saved)
    let outcome = Result { () throws(TraceError) in
      try call.runUserfaultfd(thread, target)
    }
    // Whatever happened: the thread is put back before anything is reported.
    if call.hasStarted { try call.putBack(thread, signalMask: mask) }
    try access(memory, frame.address, &overwritten, write: true)
    return .done(try outcome.get())
  }

  /// The lowest part of the first thread's stack: the deepest it ever was, and far from where it is.
  /// Below the stack pointer of another stack there may be no room (Go, coroutines).
  private static func frameArea(
    _ target: borrowing TargetProcess, stackPointer: UInt64, byteCount: UInt64
  ) throws(TraceError) -> UInt64? {
    let maps: [MapsEntry]
    do throws(KernelError) { maps = try target.maps() } catch { throw .kernel(error) }
    guard let stack = maps.first(where: { $0.path == "[stack]" }) else { return nil }
    let end = stack.range.start + byteCount
    if end > stack.range.end { return nil }
    let onIt = stackPointer >= stack.range.start && stackPointer < stack.range.end
    return onIt && stackPointer < end + stackClearance ? nil : stack.range.start
  }

  /// An injected call would end a restartable sequence without telling it (rseq(2)).
  private static func isInRestartableSequence(
    _ thread: borrowing TracedThread, _ memory: borrowing ProcessMemory
  ) -> Bool {
    let area = thread.rseqArea()
    if area == 0 { return false }
    var bytes = [UInt8](repeating: 0, count: 8)
    do throws(TraceError) {
      try access(memory, area + 8, &bytes, write: false)  // struct rseq: rseq_cs at 8
    } catch { return true }
    return bytes.contains { $0 != 0 }
  }

  private static func access(
    _ memory: borrowing ProcessMemory, _ address: UInt64, _ bytes: inout [UInt8], write: Bool
  ) throws(TraceError) {
    var failure: KernelError?
    bytes.withUnsafeMutableBytes { buffer in
      do throws(KernelError) {
        if write {
          try memory.write(UnsafeRawBufferPointer(buffer), at: address)
        } else {
          try memory.read(at: address, into: buffer)
        }
      } catch { failure = error }
    }
    if let failure { throw .kernel(failure) }
  }
}
