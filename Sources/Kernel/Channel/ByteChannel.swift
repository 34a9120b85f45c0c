internal import CLinux
internal import SystemPackage

/// A stream of bytes to another process, perhaps with one back: a pipe, a socket, or a file; over a
/// socket perhaps with TLS.
///
/// Transfers never wait; `wait` does, for as long as the caller likes. Thread-safe as the kernel's
/// calls are; who writes first is the callers' to order.
package final class ByteChannel: Sendable {
  /// What a transfer came to.
  package enum Progress: Sendable, Equatable {
    /// So many bytes were moved.
    case moved(Int)
    /// Nothing can be moved now.
    case mustWait
    /// The other end is gone.
    case ended
  }

  /// How people call the other end; used in messages only.
  package let subject: String
  /// Whether bytes can come from the other end.
  package let hasInput: Bool
  /// Whether bytes can go to the other end.
  package let hasOutput: Bool

  // One socket may be both: the second is a duplicate, or -1. Owned here, closed in deinit.
  private let input: CInt
  private let output: CInt
  private let inputKind: CInt
  private let outputKind: CInt
  private let tls: TLSConnection?

  private init(input: CInt, output: CInt, subject: String, tls: TLSConnection? = nil) {
    self.input = input
    self.output = output
    self.subject = subject
    self.tls = tls
    hasInput = input >= 0
    hasOutput = output >= 0
    inputKind = input >= 0 ? clinux_channel_kind(input) : 0
    outputKind = output >= 0 ? clinux_channel_kind(output) : 0
  }

  deinit {
    if input >= 0 { _ = clinux_close(input) }
    if output >= 0, output != input { _ = clinux_close(output) }
  }

  /// Takes over a connected socket: bytes go both ways.
  package convenience init(socket: consuming OwnedDescriptor, subject: String) {
    let number = socket.release()
    self.init(input: number, output: number, subject: subject)
  }

  /// Takes over a connected socket and secures it.
  ///
  /// - Parameters:
  ///   - name: what the other side's certificate must be of; nil for any that `context` believes.
  ///   - milliseconds: how long the handshake may take.
  package convenience init(
    socket: consuming OwnedDescriptor, securedBy context: TLSContext, name: String?,
    subject: String, milliseconds: Int32, isCancelled: () -> Bool
  ) throws(ChannelError) {
    let connection = try TLSConnection(
      context, socket: socket.number, name: name, subject: subject)
    do throws(ChannelError) {
      try connection.shakeHands(milliseconds: milliseconds, isCancelled: isCancelled)
    } catch {
      // Closed with bytes that nobody has read, the socket would take back what it said.
      clinux_close_gently(socket.release(), 1000)
      throw error
    }
    let number = socket.release()
    self.init(input: number, output: number, subject: subject, tls: connection)
  }

  /// Takes over a file or the end of a pipe to read from.
  package convenience init(reading: consuming OwnedDescriptor, subject: String) {
    self.init(input: reading.release(), output: -1, subject: subject)
  }

  /// Takes over a file or the end of a pipe to write to.
  package convenience init(writing: consuming OwnedDescriptor, subject: String) {
    self.init(input: -1, output: writing.release(), subject: subject)
  }

  /// Standard output to send to, or standard input to receive from. Only a socket goes both ways.
  package static func standard(sending: Bool) throws(ChannelError) -> ByteChannel {
    let subject = sending ? "standard output" : "standard input"
    let source: CInt = sending ? 1 : 0
    let number = try onChannel { () throws(KernelError) in
      try invoke("fcntl", on: subject) { clinux_duplicate(source) }
    }
    if clinux_channel_kind(number) == 1 {
      return ByteChannel(socket: OwnedDescriptor(owning: number), subject: subject)
    }
    return sending
      ? ByteChannel(writing: OwnedDescriptor(owning: number), subject: subject)
      : ByteChannel(reading: OwnedDescriptor(owning: number), subject: subject)
  }

  /// Has the kernel give up a TCP connection that takes nothing of what was sent for so long, also
  /// after it was closed. Without effect on other channels.
  package func limitSilence(nanoseconds: UInt64) {
    clinux_limit_silence(output, CUnsignedInt(clamping: nanoseconds / 1_000_000))
  }

  /// Ends the connection for both sides; what was sent last may be lost. Nothing but a socket ends so.
  package func hangUp() { clinux_hang_up(output) }

  /// Writes what there is room for now.
  package func write(_ bytes: UnsafeRawBufferPointer) throws(ChannelError) -> Progress {
    guard let base = bytes.baseAddress, !bytes.isEmpty else { return .moved(0) }
    if let tls { return try tls.write(bytes) }
    do throws(KernelError) {
      let count = try invoke("write", on: subject) {
        clinux_try_write(output, outputKind, base, bytes.count)
      }
      return .moved(count)
    } catch {
      switch error.errno {
      case .resourceTemporarilyUnavailable: return .mustWait
      case .brokenPipe, .connectionReset: return .ended
      default: throw ChannelError(error)
      }
    }
  }

  /// Reads what has come, into the begin of `buffer`, which is not empty.
  package func read(into buffer: UnsafeMutableRawBufferPointer) throws(ChannelError) -> Progress {
    guard let base = buffer.baseAddress else { return .moved(0) }
    if let tls { return try tls.read(into: buffer) }
    do throws(KernelError) {
      let count = try invoke("read", on: subject) {
        clinux_try_read(input, inputKind, base, buffer.count)
      }
      return count == 0 ? .ended : .moved(count)
    } catch {
      switch error.errno {
      case .resourceTemporarilyUnavailable: return .mustWait
      case .connectionReset: return .ended
      default: throw ChannelError(error)
      }
    }
  }

  /// Waits until bytes have come or, if `forRoom`, can go; or for `milliseconds`.
  ///
  /// - Returns: whether bytes (or the end) have come.
  @discardableResult
  package func wait(forInput: Bool = true, forRoom: Bool, milliseconds: Int32) throws(KernelError)
    -> Bool
  {
    let ready = try invoke("poll", on: subject) {
      clinux_channel_wait(forInput ? input : -1, forRoom ? output : -1, milliseconds)
    }
    return ready & 1 != 0
  }
}
