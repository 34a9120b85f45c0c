internal import Foundation

/// Whether `condition` becomes true within ten seconds.
package func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
  let deadline = Date(timeIntervalSinceNow: 10)
  while Date() < deadline {
    if try condition() { return true }
    usleep(2000)
  }
  return try condition()
}
