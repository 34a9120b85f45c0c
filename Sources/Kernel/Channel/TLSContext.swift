internal import CLinux
internal import COpenSSL
internal import CTLS
internal import SystemPackage

/// One side's part in TLS connections: its certificate and key, and whom it believes. Read from files
/// once, so that later connections need them no more.
package final class TLSContext: @unchecked Sendable {
  // Sendable because nothing changes after `init`: making connections of one context is what OpenSSL
  // allows any thread. Both pointers are owned here.
  let context: OpaquePointer
  private let method: OpaquePointer
  let isServer: Bool
  let name: String?

  /// Reads the files.
  package init(_ credentials: TLSCredentials, isServer: Bool) throws(ChannelError) {
    // Nothing is to run at exit: threads may still be at work then.
    OPENSSL_init_ssl(UInt64(OPENSSL_INIT_NO_ATEXIT), nil)
    guard let context = ctls_context(isServer ? 1 : 0) else { throw Self.noMemory }
    guard let method = ctls_socket_method() else {
      SSL_CTX_free(context)
      throw Self.noMemory
    }
    self.context = context
    self.method = method
    self.isServer = isServer
    name = credentials.name
    try useCertificate(credentials.certificate)
    try useKey(credentials.key, certificate: credentials.certificate)
    try useAuthority(credentials.authority)
  }

  /// Nil for nil, which is a link in the clear.
  package static func reading(_ credentials: TLSCredentials?, isServer: Bool) throws(ChannelError)
    -> TLSContext?
  {
    guard let credentials else { return nil }
    return try TLSContext(credentials, isServer: isServer)
  }

  deinit {
    SSL_CTX_free(context)
    BIO_meth_free(method)
  }

  /// A connection over the socket `number`, before its handshake. With `name` the other side's
  /// certificate must be of that name.
  func connection(_ number: CInt, name: String?) throws(ChannelError) -> OpaquePointer {
    guard let connection = ctls_connection(context, method, number, isServer ? 1 : 0) else {
      throw Self.noMemory
    }
    if let name, ctls_expect(connection, name, isServer ? 1 : 0) != 1 {
      SSL_free(connection)
      throw ChannelError(name, "no certificate can have this name; give another --tls-name")
    }
    return connection
  }

  private static let noMemory = ChannelError("TLS", "OpenSSL has no memory")

  private func useCertificate(_ path: String) throws(ChannelError) {
    try Self.checkReadable(path)
    ERR_clear_error()
    guard SSL_CTX_use_certificate_chain_file(context, path) == 1 else {
      throw ChannelError(path, "there is no certificate in PEM form in it (\(Self.reason))")
    }
    // Whoever is asked to believe it would say so, too, but less clearly.
    let certificate = SSL_CTX_get0_certificate(context)
    if X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0 {
      throw ChannelError(path, "the certificate has expired; make a new one")
    }
    if X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0 {
      throw ChannelError(path, "the certificate is not valid yet; look at this machine's clock")
    }
  }

  private func useKey(_ path: String, certificate: String) throws(ChannelError) {
    try Self.checkReadable(path)
    ERR_clear_error()
    var asked: CInt = 0
    if ctls_use_key(context, path, &asked) == 1, SSL_CTX_check_private_key(context) == 1 { return }
    if asked != 0 {
      throw ChannelError(
        path,
        "the key is protected by a password; write it without: openssl pkey -in FILE -out NEW")
    }
    let error = ERR_peek_last_error()
    if Self.library(of: error) == ERR_LIB_X509 {
      throw ChannelError(path, "it is not the key of the certificate \(certificate)")
    }
    throw ChannelError(path, "there is no private key in PEM form in it (\(Self.reason))")
  }

  private func useAuthority(_ path: String) throws(ChannelError) {
    try Self.checkReadable(path)
    ERR_clear_error()
    guard SSL_CTX_load_verify_locations(context, path, nil) == 1 else {
      throw ChannelError(path, "there is no certificate in PEM form in it (\(Self.reason))")
    }
    // A client is told which authorities' certificates it may show.
    if isServer { SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(path)) }
  }

  /// OpenSSL tells too little of a file that it cannot open.
  private static func checkReadable(_ path: String) throws(ChannelError) {
    try onChannel { () throws(KernelError) in _ = try File.open(path) }
  }

  /// The library that an error is of: what the macro ERR_GET_LIB takes out of it.
  private static func library(of error: UInt) -> CInt { CInt(error >> 23 & 0xff) }

  /// What went wrong last on this thread, in OpenSSL's words.
  static var reason: String {
    let error = ERR_peek_last_error()
    guard let text = ERR_reason_error_string(error) else { return "error \(error)" }
    return String(cString: text)
  }
}
