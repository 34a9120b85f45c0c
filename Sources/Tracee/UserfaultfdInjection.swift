internal import CLinux
internal import Glibc
package import Kernel

/// Gets a userfaultfd of another process: one thread of it is stopped once and makes the call.
///
/// Other threads run on, so they see for some ten microseconds a descriptor that is not theirs: it
/// takes the lowest free number, closes on execve, and a fork in that instant hands it down. A child
/// that has it is looked for; if there is one, that userfaultfd is dropped before it tracks anything
/// (it is inert then) and another one is made.
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

  /// On a busy machine it may be long until the thread runs, and can stop.
  private static let stopMilliseconds: UInt64 = 2000
  /// How long all others may wait for the last of them, where all have to stand still.
  private static let holdMilliseconds: UInt64 = 250
  /// How often another userfaultfd is made because a child inherited one.
  private static let inheritanceLimit = 4
  /// Rounds of looking at all threads, 5 ms apart.
  private static let roundLimit = 20
  private static let stopTries = 4

  /// Stops one thread, injects userfaultfd(2), takes the descriptor and puts the thread back.
  ///
  /// Runs on an OS thread of its own: if the target cannot be stopped in time, that thread ends and
  /// the kernel detaches everything; then another one tries. Needs the right to trace the target.
  package static func inject(
    into target: borrowing TargetProcess, faults: FaultPlan = .none
  ) throws(TraceError) -> Outcome {
    for _ in 1..<stopTries {
      do throws(TraceError) { return try injectOnce(into: target, faults) } catch {
        // On a busy machine a thread may not even get to run within the time for its stop.
        guard case .notStopping = error else { throw error }
      }
    }
    return try injectOnce(into: target, faults)
  }

  private static func injectOnce(
    into target: borrowing TargetProcess, _ faults: FaultPlan
  ) throws(TraceError) -> Outcome {
    let pid = target.pid
    let startTicks = target.startTicks
    let result: Result<(CInt, UInt64), TraceError>
    do throws(KernelError) {
      result = try OSThread.run(name: "memdump-attach") { () throws(TraceError) in
        let own: TargetProcess
        do throws(KernelError) { own = try TargetProcess(pid: pid) } catch { throw .gone(pid: pid) }
        if own.startTicks != startTicks { throw .gone(pid: pid) }
        ThisThread.preferIfPermitted()
        for chances in (0..<inheritanceLimit).reversed() {
          let outcome = try attempt(own, faults)
          if chances > 0, isInherited(outcome.descriptor, own) { continue }
          let nanoseconds = outcome.stoppedNanoseconds
          return (outcome.take().release(), nanoseconds)
        }
        throw .noSuitableThread(pid: pid, reason: "it forks all the time")
      }
    } catch { throw .kernel(error) }
    let (number, nanoseconds) = try result.get()
    return Outcome(
      descriptor: OwnedDescriptor(owning: number), stoppedNanoseconds: nanoseconds)
  }

  private static func attempt(
    _ target: borrowing TargetProcess, _ faults: FaultPlan
  ) throws(TraceError) -> Outcome {
    let memory: ProcessMemory
    do throws(KernelError) {
      memory = ProcessMemory(file: try target.open("mem", writable: true))
    } catch { throw .kernel(error) }
    let gadgets = try CallGadgets(in: target, memory: memory)
    let suspendsSeccomp: Bool
    do throws(KernelError) { suspendsSeccomp = try target.status().seccompMode != 0 } catch {
      throw .gone(pid: target.pid)
    }
    var roomGuardian: ProcessGuardian?
    var needsRoom = false
    var lastReason = "no thread is in a state to be stopped"
    for round in 0..<roundLimit {
      if round > 0 { MonotonicClock.pause(nanoseconds: 5_000_000) }
      let isLate = round >= roundLimit / 2
      for tid in try candidates(target, evenInDivisibleCalls: isLate) {
        if needsRoom, roomGuardian == nil {
          // Here, and not while the thread stands still: it takes a fork.
          do throws(KernelError) { roomGuardian = try ProcessGuardian() } catch {
            throw .kernel(error)
          }
        }
        let thread: TracedThread
        do throws(TraceError) {
          thread = try seize(tid, suspendingSeccomp: suspendsSeccomp)
        } catch {
          if case .gone = error { continue }
          throw error
        }
        let began = MonotonicClock.now
        faults.reach(.afterSeize)
        try thread.interrupt()
        faults.reach(.afterInterrupt)
        let stop: TracedThread.EventStop
        do throws(TraceError) {
          stop = try thread.waitForEventStop(
            deadline: began + stopMilliseconds * 1_000_000, allowedMilliseconds: stopMilliseconds)
        } catch {
          if case .gone = error { continue }
          throw error
        }
        let saved = try thread.hideInterruption(stop)
        faults.reach(.afterStop)
        let result = try callInStoppedThread(
          thread, saved, target, memory, gadgets, faults, roomGuardian: roomGuardian,
          mayHoldOthers: isLate)
        switch result {
        case .done(let number):
          return Outcome(
            descriptor: OwnedDescriptor(owning: number),
            stoppedNanoseconds: MonotonicClock.now - began)
        case .unsuitable(let reason): lastReason = reason
        case .noDescriptorFree where needsRoom:
          throw .noDescriptorFree(pid: target.pid)
        case .noDescriptorFree: needsRoom = true
        }
      }
    }
    throw .noSuitableThread(pid: target.pid, reason: lastReason)
  }

  /// Threads that may be stopped, those that it disturbs least first, and of those the process's
  /// first thread: its stack, `[stack]`, can grow.
  ///
  /// A thread in state D may wait for a vfork child or for a disk: a stop would wait with it. One
  /// that has written half of its bytes to a pipe would return early: it is left for later. What a
  /// running thread does cannot be known.
  private static func candidates(
    _ target: borrowing TargetProcess, evenInDivisibleCalls: Bool
  ) throws(TraceError) -> [Int32] {
    do throws(KernelError) {
      var found: [(rank: Int, tid: Int32)] = []
      for tid in try target.threadIDs() {
        let state: Character
        do throws(KernelError) {
          state = try ProcessStat(parsing: try target.read("task/\(tid)/stat")).state
        } catch { continue }
        if ["D", "Z", "X"].contains(state) { continue }
        let risk = DivisibleCall.risk(to: tid, of: target)
        if risk == .divides && !evenInDivisibleCalls { continue }
        found.append((risk.rawValue * 2 + (tid == target.pid ? 0 : 1), tid))
      }
      return found.sorted { ($0.rank, $0.tid) < ($1.rank, $1.tid) }.map(\.tid)
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
    case noDescriptorFree
  }

  /// - Parameters:
  ///   - roomGuardian: if given, room is made for a descriptor, which is there only while nobody runs
  ///     who could take it.
  ///   - mayHoldOthers: whether the other threads may be stopped for a frame where they could get to.
  private static func callInStoppedThread(
    _ thread: borrowing TracedThread, _ saved: clinux_registers,
    _ target: borrowing TargetProcess, _ memory: borrowing ProcessMemory, _ gadgets: CallGadgets,
    _ faults: FaultPlan, roomGuardian: ProcessGuardian?, mayHoldOthers: Bool
  ) throws(TraceError) -> CallResult {
    if saved.cs != 0x33 { return .unsuitable("it runs 32-bit code") }
    if isInRestartableSequence(thread, memory) {
      return .unsuitable("it is in a restartable sequence (rseq)")
    }
    let state = try thread.extendedState()
    func findArea() throws(TraceError) -> FrameArea? {
      try FrameArea.find(
        target, memory, isFirstThread: thread.tid == target.pid, stackPointer: saved.rsp,
        controlBlock: saved.fs_base,
        byteCount: SignalFrame.byteLimit(extendedStateBytes: state.count))
    }
    guard var area = try findArea() else { return .unsuitable("its stack has no room") }
    if area.isShared && !mayHoldOthers && hasOtherThreads(target) {
      return .unsuitable("it is on another stack than its own")
    }
    var others = HeldThreads(
      deadline: MonotonicClock.now + holdMilliseconds * 1_000_000,
      allowedMilliseconds: holdMilliseconds, faults: .none, except: thread.tid)
    defer { others.letGo() }
    if area.isShared || roomGuardian != nil {
      try others.stopAll(of: target)
      // Until now somebody could have got there.
      guard let still = try findArea() else { return .unsuitable("its stack has no room") }
      area = still
    }
    guard gadgets.areIntact(in: memory) else { return .unsuitable("its text changed") }
    let mask = try thread.signalMask()
    let frame = SignalFrame(
      in: area.address, registers: saved, extendedState: state, signalMask: mask,
      signalReturn: gadgets.signalReturn)
    var overwritten = [UInt8](repeating: 0, count: frame.bytes.count)
    try access(memory, frame.address, &overwritten, write: false)
    var frameBytes = frame.bytes
    try access(memory, frame.address, &frameBytes, write: true)

    faults.reach(.afterFrame)

    var call = RemoteCall(
      frame: frame.address, gadgets: gadgets, pid: target.pid, saved: saved, faults: faults)
    let outcome = Result { () throws(TraceError) in
      try call.runUserfaultfd(thread, target, roomGuardian: roomGuardian)
    }
    // Whatever happened: the thread is put back before anything is reported.
    if call.hasStarted { try call.putBack(thread, signalMask: mask) }
    try access(memory, frame.address, &overwritten, write: true)
    if case .failure(.remoteCall(_, _, EMFILE)) = outcome { return .noDescriptorFree }
    return .done(try outcome.get())
  }

  private static func hasOtherThreads(_ target: borrowing TargetProcess) -> Bool {
    ((try? target.threadIDs()) ?? []).count != 1
  }

  /// Whether a child of the process has the userfaultfd, too. The process's own copy is closed.
  private static func isInherited(
    _ descriptor: borrowing OwnedDescriptor, _ target: borrowing TargetProcess
  ) -> Bool {
    do throws(KernelError) {
      let threads = try target.threadIDs()
      if threads.count < 2 { return false }  // nobody ran who could fork
      for tid in threads {
        guard let text = try? target.read("task/\(tid)/children") else { continue }
        for word in String(decoding: text, as: UTF8.self).split(separator: " ") {
          guard let child = Int32(word), holds(descriptor, child) else { continue }
          return true
        }
      }
    } catch {}
    return false
  }

  private static func holds(_ descriptor: borrowing OwnedDescriptor, _ child: Int32) -> Bool {
    do throws(KernelError) {
      let process = try TargetProcess(pid: child)
      for name in try process.names(in: "fd") {
        guard let number = Int32(name), try process.link("fd/\(name)").contains("userfaultfd")
        else { continue }
        if try TargetProcess.isOpen(descriptor, in: child, as: number) { return true }
      }
    } catch {}
    return false
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
