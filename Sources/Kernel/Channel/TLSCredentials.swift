/// The files with which a side of a link proves who it is, and tells whom it believes.
public struct TLSCredentials: Sendable, Equatable {
  /// This side's certificate, with those between it and the authority's, if any (PEM).
  public var certificate: String
  /// The certificate's private key, without a password (PEM).
  public var key: String
  /// Certificates of the authorities that may have signed the other side's (PEM).
  public var authority: String
  /// The name or address that the other side's certificate must have. Nil: the host that is
  /// connected to; who listens then takes any that the authority has signed.
  public var name: String?

  /// Names the files; they are read when a link is made.
  public init(certificate: String, key: String, authority: String, name: String? = nil) {
    self.certificate = certificate
    self.key = key
    self.authority = authority
    self.name = name
  }
}
