internal import Foundation

/// A directory of one test's own, removed with all that is in it.
package final class TemporaryDirectory {
  /// Its absolute path, without symbolic links.
  package let path: String
  private var mounts: [String] = []

  /// Makes an empty directory below the system's temporary one, which others may look into.
  package init() throws {
    let parent = URL(fileURLWithPath: NSTemporaryDirectory()).resolvingSymlinksInPath().path
    path = "\(parent)/memdump-test-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    chmod(path, 0o755)
  }

  deinit {
    for mount in mounts { umount2(mount, Int32(MNT_DETACH)) }
    // A program that was killed a moment ago may still change what is in it.
    _ = eventually {
      try? FileManager.default.removeItem(atPath: path)
      return !FileManager.default.fileExists(atPath: path)
    }
  }

  /// The path of `name` in it.
  package func file(_ name: String) -> String { "\(path)/\(name)" }

  /// A tmpfs in it; nil if mounting is not permitted.
  package func mount(_ name: String, options: String, readOnly: Bool = false) throws -> String? {
    let place = file(name)
    try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: false)
    let flags = readOnly ? UInt(MS_RDONLY) : 0
    guard Glibc.mount("tmpfs", place, "tmpfs", flags, options) == 0 else { return nil }
    mounts.append(place)
    return place
  }

  /// Whether a tmpfs can be mounted here.
  package static var canMount: Bool {
    guard let directory = try? TemporaryDirectory() else { return false }
    return ((try? directory.mount("probe", options: "size=4k")) ?? nil) != nil
  }
}
