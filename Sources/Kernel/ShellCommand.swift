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
  /// - Parameter environment: added to our own.
  package init(_ text: String, environment: [String: String]) throws(KernelError) {
    let assignments = environment.map { strdup("\($0.key)=\($0.value)") }
    defer { for assignment in assignments { free(assignment) } }
    let pointers = assignments.map { UnsafePointer<CChar>($0) }
    group = try invoke("posix_spawn", on: "/bin/sh") {
      clinux_spawn_shell(text, pointers, pointers.count)
    }
  }

  /// How it ended, waiting for that at most so long; nil if it still runs.
  package func end(within milliseconds: Int32) -> End? {
    var status: CInt = 0
    let result = clinux_wait_child(group, milliseconds, &status)
    if result == 0 { return nil }
    // Somebody else waited for our child: how it ended is not known, and not good.
    if result < 0 { return .exited(127) }
    let signal = status & 0x7f
    return signal == 0 ? .exited(status >> 8 & 0xff) : .killed(signal)
  }

  /// Ends the command and all that it started in its process group: by SIGTERM, and by SIGKILL what
  /// is left after a second.
  package consuming func stop() {
    _ = clinux_signal_group(group, SIGTERM)
    let deadline = MonotonicClock.now + Self.politeNanoseconds
    var hasEnded = false
    while !hasEnded, MonotonicClock.now < deadline { hasEnded = end(within: 20) != nil }
    _ = clinux_signal_group(group, SIGKILL)
    while !hasEnded { hasEnded = end(within: 1000) != nil }
  }
}
