internal import CLinux

/// Instants of CLOCK_MONOTONIC and CLOCK_BOOTTIME (ns).
package enum MonotonicClock {
  /// Now, in nanoseconds of CLOCK_MONOTONIC.
  package static var now: UInt64 { clinux_monotonic_ns() }
  /// Now, in nanoseconds since boot, time asleep included.
  package static var sinceBoot: UInt64 { clinux_boottime_ns() }
  /// Gives the processor away for about this many nanoseconds, between two looks at something that
  /// has no way to wait for it.
  package static func pause(nanoseconds: UInt64) { clinux_pause_ns(nanoseconds) }
}
