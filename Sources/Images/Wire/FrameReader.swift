package import Kernel
internal import SystemPackage

/// How long to put up with the other end of a link.
package struct LinkPatience: Sendable {
  /// How long it may be silent, or take nothing (ns).
  package var silenceNanoseconds: UInt64
  /// Whether the caller wants to stop.
  package var isCancelled: @Sendable () -> Bool

  /// Waits so long, and until somebody cancels.
  package init(silenceNanoseconds: UInt64, isCancelled: @escaping @Sendable () -> Bool = { false })
  {
    self.silenceNanoseconds = silenceNanoseconds
    self.isCancelled = isCancelled
  }
}

extension ImageError {
  /// The link to `subject` is of no more use.
  package static func link(_ subject: String, _ message: String, cause: KernelError? = nil)
    -> ImageError
  {
    ImageError(.link, file: subject, message, cause: cause)
  }

  /// Wraps what is wrong with a link; a stream may also go to a file, whose disk is full.
  package init(_ error: ChannelError) {
    let isDisk = [.noSpace, .diskQuotaExceeded].contains(error.cause?.errno)
    self.init(
      isDisk ? .inputOutput : .link, file: error.subject, error.message, cause: error.cause)
  }
}

/// Runs `body` and turns a channel's failure into an `ImageError`.
@inline(__always)
func onChannel<Value>(_ body: () throws(ChannelError) -> Value) throws(ImageError) -> Value {
  do throws(ChannelError) { return try body() } catch { throw ImageError(error) }
}

/// Takes frames from a channel, in bounded memory.
struct FrameReader: ~Copyable {
  /// How often a wish to stop is looked for while nothing comes (ms).
  static let sliceMilliseconds: Int32 = 100

  private let channel: ByteChannel
  private var sequence: UInt64 = 0
  // Allocated and freed here only; [consumed, filled) has been read and waits. The capacity holds
  // the longest frame.
  private let buffer: UnsafeMutableRawBufferPointer
  private var consumed = 0
  private var filled = 0
  private var bytesTaken: UInt64 = 0

  init(_ channel: ByteChannel) {
    self.channel = channel
    buffer = .allocate(
      byteCount: WireFormat.headerBytes + WireFormat.payloadLimit, alignment: 16)
  }

  deinit { buffer.deallocate() }

  /// What came.
  enum Frame {
    /// A frame; its payload is good until the next call.
    case frame(FrameHeader, UnsafeRawBufferPointer)
    /// Not a whole frame has come yet.
    case none
    /// The other end is gone, between two frames or within one.
    case ended
  }

  /// The next frame, waiting for it.
  ///
  /// - Throws: kind `.link` when nothing came for too long or the caller wants to stop, `.stream`
  ///   when what came is no frame.
  mutating func take(_ patience: LinkPatience) throws(ImageError) -> Frame {
    var deadline = MonotonicClock.now &+ patience.silenceNanoseconds
    while true {
      let before = filled
      let frame = try takeWithoutWaiting()
      if case .none = frame {} else { return frame }
      let now = MonotonicClock.now
      if filled != before { deadline = now &+ patience.silenceNanoseconds }
      if patience.isCancelled() { throw .link(channel.subject, "stopped by request") }
      if now >= deadline {
        throw .link(
          channel.subject,
          "nothing came for \(patience.silenceNanoseconds / 1_000_000_000) seconds")
      }
      _ = try onFile(channel.subject) { () throws(KernelError) in
        try channel.wait(forRoom: false, milliseconds: Self.sliceMilliseconds)
      }
    }
  }

  /// The next frame if it has come.
  mutating func takeWithoutWaiting() throws(ImageError) -> Frame {
    while true {
      if let frame = try parse() { return frame }
      if consumed > 0 {
        buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: buffer[consumed..<filled]))
        filled -= consumed
        consumed = 0
      }
      // Room is left: a whole frame would have been taken.
      let room = UnsafeMutableRawBufferPointer(rebasing: buffer[filled...])
      let progress = try onChannel { () throws(ChannelError) in try channel.read(into: room) }
      switch progress {
      case .moved(let count): filled += count
      case .mustWait: return .none
      case .ended: return .ended
      }
    }
  }

  private mutating func parse() throws(ImageError) -> Frame? {
    guard filled - consumed >= WireFormat.headerBytes else { return nil }
    let word = UInt64(
      littleEndian: buffer.loadUnaligned(fromByteOffset: consumed, as: UInt64.self))
    guard let header = FrameHeader(word: word) else {
      throw damaged("no frame begins with \(hexAddress(word))")
    }
    let end = consumed + WireFormat.headerBytes + header.payloadBytes
    guard filled >= end else { return nil }
    let checksum = UInt64(
      littleEndian: buffer.loadUnaligned(fromByteOffset: consumed + 8, as: UInt64.self))
    let payload = UnsafeRawBufferPointer(
      rebasing: buffer[(consumed + WireFormat.headerBytes)..<end])
    guard checksum == WireFormat.checksum(payload, header: word, sequence: sequence) else {
      throw damaged("the frame's checksum is wrong: bytes were changed, lost or added")
    }
    bytesTaken += UInt64(end - consumed)
    consumed = end
    sequence += 1
    return .frame(header, payload)
  }

  private func damaged(_ message: String) -> ImageError {
    ImageError(.stream, file: channel.subject, byteOffset: bytesTaken, message)
  }
}
