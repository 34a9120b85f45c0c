internal import CLinux
internal import COpenSSL
internal import CTLS

/// A TLS connection over a socket that somebody else owns, and that must live as long.
///
/// Transfers never wait. Thread-safe: they take turns.
final class TLSConnection: @unchecked Sendable {
  // Sendable because `connection` is only used with `mutex` held; owned here.
  private let mutex = ThreadMutex()
  private let connection: OpaquePointer
  private let socket: CInt
  private let context: TLSContext
  private let subject: String

  init(_ context: TLSContext, socket: CInt, name: String?, subject: String) throws(ChannelError) {
    connection = try context.connection(socket, name: name)
    self.context = context
    self.socket = socket
    self.subject = subject
  }

  deinit { SSL_free(connection) }

  /// Comes to terms with the other side.
  ///
  /// - Throws: what either side has against it, or that nothing came of it in time or by
  ///   `isCancelled`.
  func shakeHands(milliseconds: Int32, isCancelled: () -> Bool) throws(ChannelError) {
    let deadline = MonotonicClock.now + UInt64(milliseconds) * 1_000_000
    while true {
      var forRoom = false
      let progress = try transfer(forRoom: &forRoom) { SSL_do_handshake($0) }
      switch progress {
      case .moved: return
      case .ended:
        throw ChannelError(
          subject, "the other side closed the connection; does it speak TLS (tls: there, too)?")
      case .mustWait: break
      }
      if isCancelled() { throw ChannelError(subject, "stopped by request") }
      if MonotonicClock.now >= deadline {
        throw ChannelError(
          subject,
          "no TLS handshake within \(milliseconds / 1000) s; does the other side speak TLS "
            + "(tls: there, too)?")
      }
      try onChannel { () throws(KernelError) in
        _ = try invoke("poll", on: subject) {
          clinux_channel_wait(forRoom ? -1 : socket, forRoom ? socket : -1, 100)
        }
      }
    }
  }

  /// Writes what there is room for now. After `.mustWait` the same bytes are to be written again.
  func write(_ bytes: UnsafeRawBufferPointer) throws(ChannelError) -> ByteChannel.Progress {
    var forRoom = false
    return try transfer(forRoom: &forRoom) {
      SSL_write($0, bytes.baseAddress, CInt(clamping: bytes.count))
    }
  }

  /// Reads what has come.
  func read(into buffer: UnsafeMutableRawBufferPointer) throws(ChannelError)
    -> ByteChannel.Progress
  {
    var forRoom = false
    return try transfer(forRoom: &forRoom) {
      SSL_read($0, buffer.baseAddress, CInt(clamping: buffer.count))
    }
  }

  /// - Parameter forRoom: what a transfer that must wait waits for: room, not bytes.
  private func transfer(forRoom: inout Bool, _ body: (OpaquePointer) -> CInt)
    throws(ChannelError) -> ByteChannel.Progress
  {
    try mutex.withLock { () throws(ChannelError) in
      // The error queue is the thread's.
      ERR_clear_error()
      let count = body(connection)
      if count > 0 { return .moved(Int(count)) }
      switch SSL_get_error(connection, count) {
      case SSL_ERROR_WANT_READ:
        forRoom = false
        return .mustWait
      case SSL_ERROR_WANT_WRITE:
        forRoom = true
        return .mustWait
      // The socket's end, or its own error: the link is broken either way.
      case SSL_ERROR_ZERO_RETURN, SSL_ERROR_SYSCALL: return .ended
      default: throw ChannelError(subject, explanation)
      }
    }
  }

  /// Why OpenSSL gave up.
  private var explanation: String {
    let verdict = SSL_get_verify_result(connection)
    if verdict != Int(X509_V_OK), let text = X509_verify_cert_error_string(verdict) {
      return "the other side's certificate is not accepted: \(String(cString: text))"
        + (peerName.map { " (\($0))" } ?? "")
    }
    let error = ERR_peek_error()
    let reason = ERR_reason_error_string(error).map { String(cString: $0) } ?? "error \(error)"
    if ctls_is_alert(error) != 0 {
      return "the other side does not accept this one (\(reason)); its certificate, key and "
        + "--tls-ca must fit this one's"
    }
    if SSL_is_init_finished(connection) == 0 {
      return "no TLS handshake (\(reason)); does the other side speak TLS (tls: there, too)?"
    }
    return "TLS: \(reason)"
  }

  private var peerName: String? {
    guard let certificate = SSL_get0_peer_certificate(connection) else { return nil }
    var buffer = [CChar](repeating: 0, count: 256)
    guard
      X509_NAME_oneline(X509_get_subject_name(certificate), &buffer, CInt(buffer.count)) != nil
    else { return nil }
    return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}
