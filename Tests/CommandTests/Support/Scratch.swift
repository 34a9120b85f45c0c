import Foundation

/// A directory for one test; gone with it.
final class Scratch {
  let path: String
  private var mounts: [String] = []

  init() throws {
    path = NSTemporaryDirectory() + "memdump-command-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    chmod(path, 0o755)
  }

  deinit {
    for mount in mounts { umount2(mount, Int32(MNT_DETACH)) }
    try? FileManager.default.removeItem(atPath: path)
  }

  /// A path in it.
  func file(_ name: String) -> String { "\(path)/\(name)" }

  /// A tmpfs in it; nil if mounting is not permitted.
  func mount(_ name: String, options: String, readOnly: Bool = false) throws -> String? {
    let place = file(name)
    try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: false)
    let flags = readOnly ? UInt(MS_RDONLY) : 0
    guard Glibc.mount("tmpfs", place, "tmpfs", flags, options) == 0 else { return nil }
    mounts.append(place)
    return place
  }

  /// Whether a tmpfs can be mounted here.
  static var canMount: Bool {
    guard let scratch = try? Scratch() else { return false }
    return ((try? scratch.mount("probe", options: "size=4k")) ?? nil) != nil
  }
}
