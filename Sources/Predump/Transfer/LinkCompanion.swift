package import Images

/// A connection beside that of the rounds, without which they are of no use: a migration's own.
///
/// Called on the engine's thread.
package protocol LinkCompanion: Sendable {
  /// Looks whether it still stands.
  ///
  /// - Throws: kind `.link` if not: the rounds' link counts as broken then, too.
  func check() throws(ImageError)

  /// Makes it anew, before the rounds' link is.
  ///
  /// - Throws: kind `.link` if that may yet succeed, another one if not.
  func reconnect() throws(ImageError)

  /// All rounds are acknowledged: returns when the other side is ready for what comes after them.
  ///
  /// - Throws: as `check`.
  func settle() throws(ImageError)
}
