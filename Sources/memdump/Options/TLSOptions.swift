internal import ArgumentParser
internal import Kernel

/// The certificates of a link that is secured by TLS.
struct TLSOptions: ParsableArguments {
  @Option(help: ArgumentHelp("TLS: this side's certificate (PEM).", valueName: "pem"))
  var tlsCertificate: String?

  @Option(help: ArgumentHelp("TLS: its key, without a password.", valueName: "pem"))
  var tlsKey: String?

  @Option(help: ArgumentHelp("TLS: who must have signed the other side's.", valueName: "pem"))
  var tlsCa: String?

  @Option(
    help: ArgumentHelp("TLS: the other side's name (default: HOST, or any).", valueName: "name"))
  var tlsName: String?

  /// The files for `endpoint`, which takes them all or none.
  func credentials(for endpoint: Endpoint?) throws -> TLSCredentials? {
    guard let endpoint, endpoint.isSecured else {
      if tlsCertificate ?? tlsKey ?? tlsCa ?? tlsName == nil { return nil }
      throw ValidationError("the --tls options are for a link to or from tls:HOST:PORT")
    }
    guard let given else {
      throw ValidationError(
        "\(endpoint.text) takes --tls-certificate, --tls-key and --tls-ca: both sides show who they "
          + "are")
    }
    return given
  }

  /// The files that were named, if all were.
  var given: TLSCredentials? {
    guard let tlsCertificate, let tlsKey, let tlsCa else { return nil }
    return TLSCredentials(
      certificate: tlsCertificate, key: tlsKey, authority: tlsCa, name: tlsName)
  }
}
