internal import Foundation

/// A directory of one test's own, removed with all that is in it.
package final class TemporaryDirectory {
  /// Its absolute path.
  package let path: String

  /// Makes an empty directory below the system's temporary one.
  package init() throws {
    path = NSTemporaryDirectory() + "memdump-test-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// The path of `name` in it.
  package func file(_ name: String) -> String { "\(path)/\(name)" }
}
