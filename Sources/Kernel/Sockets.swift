internal import CLinux
internal import Glibc
internal import SystemPackage

/// A stream socket that waits for connections.
package struct ListeningSocket: ~Copyable, Sendable {
  /// The open socket.
  package let descriptor: OwnedDescriptor
  private let address: String

  /// Listens on the new unix(7) socket `name` in `directory`.
  package init(local name: String, in directory: borrowing Directory) throws(KernelError) {
    let address = directory.join(name)
    // A socket's path may have 107 bytes at most; the directory's may be longer.
    let path = "/proc/self/fd/\(directory.descriptor.number)/\(name)"
    let number = try invoke("bind", on: address) { clinux_listen_unix(path) }
    descriptor = OwnedDescriptor(owning: number)
    self.address = address
  }

  /// Listens on the new unix(7) socket at `path`.
  package init(local path: String) throws(KernelError) {
    let number = try invoke("bind", on: path) { clinux_listen_unix(path) }
    descriptor = OwnedDescriptor(owning: number)
    address = path
  }

  /// Listens on a TCP port, 0 being any free one; at every address if `host` is empty.
  package init(host: String, port: UInt16) throws(KernelError) {
    let address = "\(host):\(port)"
    var resolver: CInt = 0
    let number = try invoke("bind", on: address) {
      clinux_listen_tcp(host.isEmpty ? nil : host, String(port), &resolver)
    }
    descriptor = OwnedDescriptor(owning: number)
    self.address = address
  }

  /// The TCP port.
  package func port() throws(KernelError) -> UInt16 {
    UInt16(try invoke("getsockname", on: address) { clinux_local_port(descriptor.number) })
  }

  /// Waits for a connection.
  package func accept() throws(KernelError) -> ConnectedSocket {
    while true {
      do throws(KernelError) {
        let number = try invoke("accept", on: address) { clinux_accept(descriptor.number, -1) }
        return ConnectedSocket(OwnedDescriptor(owning: number), address: address)
      } catch {
        // Interrupted, or gone again before it was ours.
        if error.errno != .resourceTemporarilyUnavailable { throw error }
      }
    }
  }
}

/// One end of a connection.
package struct ConnectedSocket: ~Copyable, Sendable {
  /// The open socket.
  package let descriptor: OwnedDescriptor
  private let address: String

  init(_ descriptor: consuming OwnedDescriptor, address: String) {
    self.descriptor = descriptor
    self.address = address
  }

  /// A connection that the other side has ended already, having said nothing.
  package static func ended() throws(KernelError) -> OwnedDescriptor {
    OwnedDescriptor(owning: try invoke("socketpair", on: "a socket") { clinux_ended_socket() })
  }

  /// Fills the whole of `buffer`. False if the other side closed the connection before its first
  /// byte.
  ///
  /// - Throws: `KernelError` with ECONNRESET if it closed it in the midst.
  package func receive(into buffer: UnsafeMutableRawBufferPointer) throws(KernelError) -> Bool {
    let count = try invoke("recv", on: address) {
      clinux_receive_all(descriptor.number, buffer.baseAddress, buffer.count)
    }
    if count == 0 && !buffer.isEmpty { return false }
    guard count == buffer.count else {
      throw KernelError(call: "recv", subject: address, errno: .connectionReset)
    }
    return true
  }

  /// Sends all of `bytes`.
  package func send(_ bytes: UnsafeRawBufferPointer) throws(KernelError) {
    guard let base = bytes.baseAddress else { return }
    var done = 0
    while done < bytes.count {
      done += try invoke("send", on: address) {
        clinux_send(descriptor.number, base + done, bytes.count - done)
      }
    }
  }

  /// The descriptor that the other side sends with one byte.
  ///
  /// - Throws: `KernelError` with EPIPE if it closed the connection instead.
  package func receiveDescriptor() throws(KernelError) -> OwnedDescriptor {
    let number = try invoke("recvmsg", on: address) {
      clinux_receive_descriptor(descriptor.number)
    }
    return OwnedDescriptor(owning: number)
  }
}
