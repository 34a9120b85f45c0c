/// Files of a round that are written, and wait to be made to survive a power cut: together, when nobody
/// waits for it.
final class UnsyncedFiles {
  /// So many are kept open at most.
  private static let limit = 64
  private var files: [ImageFile.LocalFile] = []

  func add(_ file: ImageFile.LocalFile) throws(ImageError) {
    if files.count == Self.limit { try sync() }
    files.append(file)
  }

  /// Syncs and closes all of them.
  func sync() throws(ImageError) {
    for file in files { try file.sync() }
    files = []
  }
}
