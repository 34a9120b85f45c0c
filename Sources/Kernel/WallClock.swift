internal import Glibc

/// The time of day, for records that people read.
package enum WallClock {
  /// Seconds since 1970, UTC.
  package static var secondsSince1970: UInt64 { UInt64(time(nil)) }
}
