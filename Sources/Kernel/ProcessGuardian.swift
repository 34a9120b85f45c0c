internal import CLinux
internal import Glibc
internal import Synchronization

/// A small process beside this one that undoes, should this one be killed, what the kernel does not
/// undo by itself: it kills a command that runs, and continues processes that we stopped, or kills
/// those that cannot go on without us; and it gives a process its limit back.
///
/// It is in a session of its own and blocks all signals: only SIGKILL, meant for it, ends it first.
package final class ProcessGuardian: Sendable {
  private let control: OwnedDescriptor
  private let order = Mutex(clinux_guardian_order())

  /// To be made while this process is small: it is forked.
  package init() throws(KernelError) {
    var control: CInt = -1
    _ = try invoke("fork", on: "a guardian") { clinux_fork_guardian(&control) }
    self.control = OwnedDescriptor(owning: control)
  }

  // Closing the socket ends the guardian, which then carries out the last order.

  /// Adds `process` to those that `setContinues` and `setKills` are about.
  package func take(_ process: borrowing TargetProcess) throws(KernelError) {
    try add(process.pidDescriptorNumber, "pid \(process.pid)")
  }

  /// Keeps the missing pages of a process that it took missing: whoever waits for one waits on until
  /// the process got its signal.
  package func take(_ pages: borrowing MissingPages) throws(KernelError) {
    try add(pages.descriptor, "missing pages")
  }

  private func add(_ descriptor: CInt, _ subject: String) throws(KernelError) {
    let number = control.number
    let result = order.withLock { order in clinux_add_guarded(number, descriptor, &order) }
    _ = try invoke("sendmsg", on: "the guardian of \(subject)") { result }
  }

  /// From now on the processes that it took are continued (SIGCONT) when we end; or they are not,
  /// and it forgets them.
  package func setContinues(_ continues: Bool) throws(KernelError) {
    try change { $0.signal = continues ? SIGCONT : 0 }
  }

  /// From now on the processes that it took are killed when we end; or they are not, and it forgets
  /// them.
  package func setKills(_ kills: Bool) throws(KernelError) {
    try change { $0.signal = kills ? SIGKILL : 0 }
  }

  /// From now on this process group is killed when we end; 0 for none.
  package func setGroup(_ group: Int32) throws(KernelError) { try change { $0.group = group } }

  /// From now on process `pid` gets this limit of descriptors back when we end; nil for none.
  package func setDescriptorLimit(_ limit: TargetProcess.DescriptorLimit?, of pid: Int32)
    throws(KernelError)
  {
    try change { order in
      order.limited = limit == nil ? 0 : pid
      if let limit { order.limit = (limit.soft, limit.hard) }
    }
  }

  private func change(_ body: (inout clinux_guardian_order) -> Void) throws(KernelError) {
    let number = control.number
    let result = order.withLock { order in
      body(&order)
      return clinux_order_guardian(number, &order)
    }
    _ = try invoke("send", on: "the guardian") { result }
  }
}
