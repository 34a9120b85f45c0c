internal import Glibc

/// The directory that relative paths begin at.
package enum WorkingDirectory {
  /// `path` for somebody who works in another directory.
  package static func absolute(_ path: String) -> String {
    if path.hasPrefix("/") { return path }
    guard let current = getcwd(nil, 0) else { return path }
    defer { free(current) }
    let directory = String(cString: current)
    return directory == "/" ? "/\(path)" : "\(directory)/\(path)"
  }
}
