internal import CLinux
internal import Synchronization
internal import SystemPackage

/// Where a stream of images goes to or comes from.
public enum Endpoint: Sendable, Equatable {
  /// Standard output, or standard input.
  case standard
  /// A socket in the file system.
  case unix(path: String)
  /// A TCP port; the host is a name or an address.
  case tcp(host: String, port: UInt16)
  /// TLS over a TCP port: encrypted, and both sides show a certificate.
  case tls(host: String, port: UInt16)

  /// Reads `-`, `unix:PATH`, `tcp:HOST:PORT` or `tls:HOST:PORT`, of which HOST may be `[ADDRESS]`; nil
  /// if it is none of them.
  public init?(_ text: String) {
    if text == "-" {
      self = .standard
    } else if text.hasPrefix("unix:"), text.utf8.count > 5 {
      self = .unix(path: String(text.dropFirst(5)))
    } else if text.hasPrefix("tcp:"), let place = Self.hostAndPort(text.dropFirst(4)) {
      self = .tcp(host: place.host, port: place.port)
    } else if text.hasPrefix("tls:"), let place = Self.hostAndPort(text.dropFirst(4)) {
      self = .tls(host: place.host, port: place.port)
    } else {
      return nil
    }
  }

  private static func hostAndPort(_ text: Substring) -> (host: String, port: UInt16)? {
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...])
    else { return nil }
    var host = text[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") {
      host = host.dropFirst().dropLast()
    } else if host.contains(":") {
      return nil
    }
    return host.isEmpty ? nil : (String(host), port)
  }

  /// The text that it is read from.
  public var text: String {
    switch self {
    case .standard: "-"
    case .unix(let path): "unix:\(path)"
    case .tcp(let host, let port): "tcp:\(Self.text(host, port))"
    case .tls(let host, let port): "tls:\(Self.text(host, port))"
    }
  }

  private static func text(_ host: String, _ port: UInt16) -> String {
    host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
  }

  /// Whether certificates are needed.
  public var isSecured: Bool {
    if case .tls = self { true } else { false }
  }

  /// Connects as the side that sends.
  ///
  /// - Parameters:
  ///   - tls: the certificates, for an endpoint that is secured.
  ///   - milliseconds: how long a TCP connection may take, and a TLS handshake.
  package func connect(
    milliseconds: Int32, tls: TLSContext? = nil, isCancelled: () -> Bool = { false }
  ) throws(ChannelError) -> ByteChannel {
    switch self {
    case .standard: return try .standard(sending: true)
    case .unix(let path):
      let number = try onChannel { () throws(KernelError) in
        try invoke("connect", on: text) { clinux_connect_unix(path) }
      }
      return ByteChannel(socket: OwnedDescriptor(owning: number), subject: text)
    case .tcp(let host, let port):
      return ByteChannel(socket: try connect(host, port, milliseconds), subject: text)
    case .tls(let host, let port):
      guard let tls else { throw Self.noCertificates(text) }
      return try ByteChannel(
        socket: try connect(host, port, milliseconds), securedBy: tls, name: tls.name ?? host,
        subject: text, milliseconds: milliseconds, isCancelled: isCancelled)
    }
  }

  private func connect(_ host: String, _ port: UInt16, _ milliseconds: Int32)
    throws(ChannelError) -> OwnedDescriptor
  {
    var resolver: CInt = 0
    do throws(KernelError) {
      return OwnedDescriptor(
        owning: try invoke("connect", on: text) {
          clinux_connect_tcp(host, "\(port)", milliseconds, &resolver)
        })
    } catch { throw ChannelError(Self.explain(error, resolver)) }
  }

  fileprivate static func noCertificates(_ text: String) -> ChannelError {
    ChannelError(text, "TLS takes certificates")
  }

  /// Adds what the resolver said of a host that it does not know.
  fileprivate static func explain(_ error: KernelError, _ resolver: CInt) -> KernelError {
    guard resolver != 0, let reason = clinux_resolver_error(resolver) else { return error }
    return KernelError(
      call: "getaddrinfo (\(String(cString: reason)))", subject: error.subject, errno: error.errno)
  }
}

/// A place that waits for one connection.
package final class Listener: Sendable {
  private let descriptor: OwnedDescriptor
  private let path: String?
  private let isRemoved = Atomic<Bool>(false)
  private let tls: TLSContext?
  /// Where it listens, with the port that it really has.
  package let endpoint: Endpoint

  /// How long who connects may take for a TLS handshake (ms); nobody else gets a turn meanwhile.
  package static let handshakeMilliseconds: Int32 = 10_000

  /// Listens at a Unix or TCP address. A Unix socket is for its owner only (mode 0600), and is
  /// removed with the listener; its path must not exist.
  ///
  /// - Parameters:
  ///   - tls: the certificates, for an endpoint that is secured.
  ///   - replacesStale: whether a Unix socket of ours may be there that nobody listens at any more; its
  ///     directory must then be one in which nobody else can put another in its place.
  package init(_ endpoint: Endpoint, tls: TLSContext? = nil, replacesStale: Bool = false)
    throws(ChannelError)
  {
    switch endpoint {
    case .standard: throw ChannelError(endpoint.text, "nobody can connect to that")
    case .unix(let path):
      if replacesStale { try Self.makeRoom(path) }
      let number = try onChannel { () throws(KernelError) in
        try invoke("bind", on: endpoint.text) { clinux_listen_unix(path) }
      }
      descriptor = OwnedDescriptor(owning: number)
      self.tls = nil
      self.path = path
      self.endpoint = endpoint
    case .tcp(let host, let port):
      let number = try Self.listen(endpoint, host, port)
      descriptor = OwnedDescriptor(owning: number)
      self.tls = nil
      path = nil
      self.endpoint = .tcp(host: host, port: UInt16(clamping: clinux_local_port(number)))
    case .tls(let host, let port):
      guard let tls else { throw Endpoint.noCertificates(endpoint.text) }
      let number = try Self.listen(endpoint, host, port)
      descriptor = OwnedDescriptor(owning: number)
      self.tls = tls
      path = nil
      self.endpoint = .tls(host: host, port: UInt16(clamping: clinux_local_port(number)))
    }
  }

  private static func makeRoom(_ path: String) throws(ChannelError) {
    let parent = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
    let isOpen = try onChannel { () throws(KernelError) in
      try Directory.open(parent, followSymlink: true).isOpenToOthers()
    }
    if isOpen {
      throw ChannelError(
        path, "anybody could put another socket in its place; name one in a directory of your own")
    }
    if clinux_is_stale_socket(path) == 1 { _ = clinux_unlinkat(-100, path, 0) }
  }

  private static func listen(_ endpoint: Endpoint, _ host: String, _ port: UInt16)
    throws(ChannelError) -> CInt
  {
    var resolver: CInt = 0
    do throws(KernelError) {
      return try invoke("bind", on: endpoint.text) {
        clinux_listen_tcp(host, "\(port)", &resolver)
      }
    } catch { throw ChannelError(Endpoint.explain(error, resolver)) }
  }

  deinit { remove() }

  /// Removes a Unix socket's name: nobody else can connect from now on.
  package func remove() {
    guard let path, !isRemoved.exchange(true, ordering: .acquiringAndReleasing) else { return }
    _ = clinux_unlinkat(-100, path, 0)
  }

  /// Who came.
  package enum Arrival {
    /// Nobody, in time.
    case nobody
    /// A connection.
    case channel(ByteChannel)
    /// Somebody who could not show that they may, or does not speak TLS: they are gone again.
    case refused(ChannelError)
  }

  /// The next connection, if one comes within `milliseconds`, and its TLS handshake then within
  /// `handshakeMilliseconds`.
  package func accept(
    milliseconds: Int32, handshakeMilliseconds: Int32 = Listener.handshakeMilliseconds,
    isCancelled: () -> Bool = { false }
  ) throws(ChannelError) -> Arrival {
    let socket: OwnedDescriptor
    do throws(KernelError) {
      let number = try invoke("accept", on: endpoint.text) {
        clinux_accept(descriptor.number, milliseconds)
      }
      socket = OwnedDescriptor(owning: number)
    } catch {
      if error.errno == .resourceTemporarilyUnavailable { return .nobody }
      throw ChannelError(error)
    }
    guard let tls else {
      return .channel(ByteChannel(socket: socket, subject: endpoint.text))
    }
    do throws(ChannelError) {
      return .channel(
        try ByteChannel(
          socket: socket, securedBy: tls, name: tls.name, subject: endpoint.text,
          milliseconds: handshakeMilliseconds, isCancelled: isCancelled))
    } catch { return .refused(error) }
  }
}
