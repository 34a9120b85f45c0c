internal import CLinux
internal import Glibc

/// A command of the user's that `/bin/sh` runs, in a process group of its own.
package struct ShellCommand: ~Copyable {
  /// How a command ended.
  package enum End: Sendable, Equatable {
    /// It exited with this code.
    case exited(Int32)
    /// This signal killed it.
    case killed(Int32)
  }

  private static let politeNanoseconds: UInt64 = 1_000_000_000

  /// The process group; the shell's process id.
  package let group: Int32

  /// Starts `text`. What it prints goes to our standard error, and it reads nothing.
  ///
  /// - Parameters:
  ///   - environment: added to our own.
  ///   - prepare: gets the process group before the command does anything.
  package init(
    _ text: String, environment: [String: String],
    prepare: (Int32) throws(KernelError) -> Void
  ) throws(KernelError) {
    let assignments = environment.map { strdup("\($0.key)=\($0.value)") }
    defer { for assignment in assignments { free(assignment) } }
    let pointers = assignments.map { UnsafePointer<CChar>($0) }
    var gate: CInt = -1
    let group = try invoke("posix_spawn", on: "/bin/sh") {
      clinux_spawn_shell(text, pointers, pointers.count, &gate)
    }
    let opened = OwnedDescriptor(owning: gate)
    do throws(KernelError) {
      try prepare(group)
      _ = try invoke("write", on: "/bin/sh") { clinux_write(opened.number, "\n", 1) }
    } catch {
      // Nothing of the command has run.
      Self.stop(group)
      throw error
    }
    self.group = group
  }

  /// How it ended, waiting for that at most so long; nil if it still runs.
  package func end(within milliseconds: Int32) -> End? { Self.end(group, within: milliseconds) }

  /// Ends the command and all that it started in its process group: by SIGTERM, and by SIGKILL what
  /// is left after a second.
  package func stop() { Self.stop(group) }

  private static func end(_ group: Int32, within milliseconds: Int32) -> End? {
    var status: CInt = 0
    let result = clinux_wait_child(group, milliseconds, &status)
    if result == 0 { return nil }
    // Somebody else waited for our child: how it ended is not known, and not good.
    if result < 0 { return .exited(127) }
    let signal = status & 0x7f
    return signal == 0 ? .exited(status >> 8 & 0xff) : .killed(signal)
  }

  private static func stop(_ group: Int32) {
    _ = clinux_signal_group(group, SIGTERM)
    let deadline = MonotonicClock.now + politeNanoseconds
    var hasEnded = false
    while !hasEnded, MonotonicClock.now < deadline { hasEnded = end(group, within: 20) != nil }
    _ = clinux_signal_group(group, SIGKILL)
    while !hasEnded { hasEnded = end(group, within: 1000) != nil }
  }
}
