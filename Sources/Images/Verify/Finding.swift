/// Something that a check of images came upon.
public struct Finding: Sendable, Equatable, Codable {
  /// How bad it is.
  public enum Severity: String, Sendable, Codable {
    /// The images do not hold what was dumped, or CRIU would refuse them.
    case damage
    /// Worth knowing; the images are good all the same.
    case notice
  }

  /// What kind of thing it is.
  public let kind: DamageKind
  /// How bad it is.
  public let severity: Severity
  /// Directory name of the round; nil if it concerns the session.
  public let round: String?
  /// The file or directory, as people would write it.
  public let file: String
  /// Where in the file (bytes), if that is known.
  public let byteOffset: UInt64?
  /// Which address of the process, or offset in the shared object, is concerned.
  public let address: UInt64?
  /// What it is, in words.
  public let message: String

  /// Makes a finding of an error.
  init(_ error: ImageError, severity: Severity, round: String?) {
    kind = error.kind
    self.severity = severity
    self.round = round
    file = error.file
    byteOffset = error.byteOffset
    address = error.address
    message = error.message
  }
}
