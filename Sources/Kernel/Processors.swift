internal import CLinux

/// The processors of this machine.
package enum Processors {
  /// How many the calling thread may run on (sched_getaffinity); 1 at least.
  package static var allowedCount: Int { max(1, Int(clinux_allowed_processors())) }
}
