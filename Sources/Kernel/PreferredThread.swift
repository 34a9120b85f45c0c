internal import CLinux

/// The calling thread runs before others (nice -20), where the user may do that, until this is
/// dropped on the same thread.
package struct PreferredThread: ~Copyable {
  private let nice = clinux_nice()

  package init() { ThisThread.preferIfPermitted() }

  deinit { _ = clinux_set_nice(nice) }
}
