internal import CLinux
internal import Synchronization

/// A small process beside this one that undoes, should this one be killed, what the kernel does not
/// undo by itself: it kills a command that runs, and continues a process that we stopped.
///
/// It is in a session of its own and blocks all signals: only SIGKILL, meant for it, ends it first.
package final class ProcessGuardian: Sendable {
  private let control: OwnedDescriptor
  private let order = Mutex(clinux_guardian_order())
  /// Who is guarded: clock ticks from boot to its start.
  package let startTicks: UInt64

  /// To be made while this process is small: it is forked.
  init(pidDescriptor: borrowing OwnedDescriptor, pid: Int32, startTicks: UInt64)
    throws(KernelError)
  {
    let number = pidDescriptor.number
    var control: CInt = -1
    _ = try invoke("fork", on: "the guardian of pid \(pid)") {
      clinux_fork_guardian(number, &control)
    }
    self.control = OwnedDescriptor(owning: control)
    self.startTicks = startTicks
  }

  // Closing the pipe ends the guardian, which then carries out the last order.

  /// From now on the process is continued (SIGCONT) when we end, or is not.
  package func setContinues(_ continues: Bool) throws(KernelError) {
    try change { $0.continues = continues ? 1 : 0 }
  }

  /// From now on this process group is killed when we end; 0 for none.
  package func setGroup(_ group: Int32) throws(KernelError) { try change { $0.group = group } }

  private func change(_ body: (inout clinux_guardian_order) -> Void) throws(KernelError) {
    let number = control.number
    let result = order.withLock { order in
      body(&order)
      return clinux_write(number, &order, MemoryLayout<clinux_guardian_order>.size)
    }
    _ = try invoke("write", on: "the guardian") { result }
  }
}
