internal import Images

/// A directory from which CRIU restores a process before its memory is there.
public enum LazyImages {
  /// Writes the directory at `target`, which must not exist, for `criu restore --lazy-pages`.
  ///
  /// - Parameter eagerBytes: how much of what the process wrote last to put into it.
  /// - Returns: the pages in it, and those that are left to a page server.
  public static func write(_ directory: String, to target: String, eagerBytes: UInt64)
    throws(MigrationError) -> (eagerPages: UInt64, lazyPages: UInt64)
  {
    do {
      let totals = try LazyDirectory.write(directory, to: target, eagerBytes: eagerBytes)
      return (totals.eagerPages, totals.lazyPages)
    } catch { throw MigrationError(error) }
  }
}
