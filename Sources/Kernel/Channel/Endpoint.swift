internal import CLinux
internal import SystemPackage

/// Where a stream of images goes to or comes from.
public enum Endpoint: Sendable, Equatable {
  /// Standard output, or standard input.
  case standard
  /// A socket in the file system.
  case unix(path: String)
  /// A TCP port; the host is a name or an address.
  case tcp(host: String, port: UInt16)

  /// Reads `-`, `unix:PATH`, `tcp:HOST:PORT` or `tcp:[ADDRESS]:PORT`; nil if it is none of them.
  public init?(_ text: String) {
    if text == "-" {
      self = .standard
    } else if text.hasPrefix("unix:"), text.utf8.count > 5 {
      self = .unix(path: String(text.dropFirst(5)))
    } else if text.hasPrefix("tcp:"), let colon = text.lastIndex(of: ":"),
      let port = UInt16(text[text.index(after: colon)...])
    {
      var host = text[..<colon].dropFirst(4)
      if host.hasPrefix("["), host.hasSuffix("]") {
        host = host.dropFirst().dropLast()
      } else if host.contains(":") {
        return nil
      }
      if host.isEmpty { return nil }
      self = .tcp(host: String(host), port: port)
    } else {
      return nil
    }
  }

  /// The text that it is read from.
  public var text: String {
    switch self {
    case .standard: "-"
    case .unix(let path): "unix:\(path)"
    case .tcp(let host, let port):
      host.contains(":") ? "tcp:[\(host)]:\(port)" : "tcp:\(host):\(port)"
    }
  }

  /// Connects as the side that sends.
  ///
  /// - Parameter milliseconds: how long a TCP connection may take.
  package func connect(milliseconds: Int32) throws(KernelError) -> ByteChannel {
    switch self {
    case .standard: return try .standard(sending: true)
    case .unix(let path):
      let number = try invoke("connect", on: text) { clinux_connect_unix(path) }
      return ByteChannel(socket: OwnedDescriptor(owning: number), subject: text)
    case .tcp(let host, let port):
      var resolver: CInt = 0
      do throws(KernelError) {
        let number = try invoke("connect", on: text) {
          clinux_connect_tcp(host, "\(port)", milliseconds, &resolver)
        }
        return ByteChannel(socket: OwnedDescriptor(owning: number), subject: text)
      } catch { throw Self.explain(error, resolver) }
    }
  }

  /// Adds what the resolver said of a host that it does not know.
  fileprivate static func explain(_ error: KernelError, _ resolver: CInt) -> KernelError {
    guard resolver != 0, let reason = clinux_resolver_error(resolver) else { return error }
    return KernelError(
      call: "getaddrinfo (\(String(cString: reason)))", subject: error.subject, errno: error.errno)
  }
}

/// A place that waits for one connection.
package struct Listener: ~Copyable {
  private let descriptor: OwnedDescriptor
  private let path: String?
  /// Where it listens, with the port that it really has.
  package let endpoint: Endpoint

  /// Listens at a Unix or TCP address. A Unix socket is for its owner only (mode 0600), and is
  /// removed with the listener; its path must not exist.
  package init(_ endpoint: Endpoint) throws(KernelError) {
    switch endpoint {
    case .standard:
      throw KernelError(call: "listen", subject: endpoint.text, errno: .invalidArgument)
    case .unix(let path):
      let number = try invoke("bind", on: endpoint.text) { clinux_listen_unix(path) }
      descriptor = OwnedDescriptor(owning: number)
      self.path = path
      self.endpoint = endpoint
    case .tcp(let host, let port):
      var resolver: CInt = 0
      let number: CInt
      do throws(KernelError) {
        number = try invoke("bind", on: endpoint.text) {
          clinux_listen_tcp(host, "\(port)", &resolver)
        }
      } catch { throw Endpoint.explain(error, resolver) }
      descriptor = OwnedDescriptor(owning: number)
      path = nil
      self.endpoint = .tcp(host: host, port: UInt16(clamping: clinux_local_port(number)))
    }
  }

  deinit { if let path { _ = clinux_unlinkat(-100, path, 0) } }

  /// The next connection; nil if none came within `milliseconds`.
  package func accept(milliseconds: Int32) throws(KernelError) -> ByteChannel? {
    do throws(KernelError) {
      let number = try invoke("accept", on: endpoint.text) {
        clinux_accept(descriptor.number, milliseconds)
      }
      return ByteChannel(socket: OwnedDescriptor(owning: number), subject: endpoint.text)
    } catch {
      if error.errno == .resourceTemporarilyUnavailable { return nil }
      throw error
    }
  }
}
