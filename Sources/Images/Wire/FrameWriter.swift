internal import Kernel

/// Puts frames on a channel.
struct FrameWriter: ~Copyable {
  private let channel: ByteChannel
  private var sequence: UInt64 = 0
  // Allocated and freed here only: a header, and payloads that are short enough to go with it.
  private let buffer: UnsafeMutableRawBufferPointer

  init(_ channel: ByteChannel) {
    self.channel = channel
    buffer = .allocate(byteCount: 4096, alignment: 16)
  }

  deinit { buffer.deallocate() }

  /// Sends a frame with a payload of at most `WireFormat.payloadLimit` bytes.
  ///
  /// - Parameter whenFull: called whenever nothing can go, with the bytes of this frame that went; it
  ///   waits, or throws.
  mutating func put(
    _ kind: FrameKind, slot: UInt8 = 0, _ payload: UnsafeRawBufferPointer,
    whenFull: (Int) throws(ImageError) -> Void
  ) throws(ImageError) {
    let word = FrameHeader(kind, slot: slot, payloadBytes: payload.count).word
    let checksum = WireFormat.checksum(payload, header: word, sequence: sequence)
    sequence += 1
    buffer.storeBytes(of: word.littleEndian, toByteOffset: 0, as: UInt64.self)
    buffer.storeBytes(of: checksum.littleEndian, toByteOffset: 8, as: UInt64.self)
    let isShort = payload.count <= buffer.count - WireFormat.headerBytes
    var head = WireFormat.headerBytes
    if isShort {
      UnsafeMutableRawBufferPointer(rebasing: buffer[head...]).copyMemory(from: payload)
      head += payload.count
    }
    try send(UnsafeRawBufferPointer(rebasing: buffer[..<head]), after: 0, whenFull: whenFull)
    if !isShort { try send(payload, after: head, whenFull: whenFull) }
  }

  private func send(
    _ bytes: UnsafeRawBufferPointer, after sent: Int, whenFull: (Int) throws(ImageError) -> Void
  ) throws(ImageError) {
    var rest = bytes
    while !rest.isEmpty {
      let progress = try onChannel { () throws(ChannelError) in try channel.write(rest) }
      switch progress {
      case .moved(let count): rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      case .mustWait: try whenFull(sent + bytes.count - rest.count)
      case .ended: throw .link(channel.subject, "the other end is gone")
      }
    }
  }
}

extension FrameWriter {
  /// Sends a frame whose payload is made of integers.
  mutating func put(
    _ kind: FrameKind, slot: UInt8 = 0, words: [UInt64], whenFull: (Int) throws(ImageError) -> Void
  ) throws(ImageError) {
    var failure: ImageError?
    words.map(\.littleEndian).withUnsafeBytes { bytes in
      do throws(ImageError) { try put(kind, slot: slot, bytes, whenFull: whenFull) } catch {
        failure = error
      }
    }
    if let failure { throw failure }
  }

  /// Sends a frame whose payload is text.
  mutating func put(
    _ kind: FrameKind, slot: UInt8 = 0, text: String, whenFull: (Int) throws(ImageError) -> Void
  ) throws(ImageError) {
    var failure: ImageError?
    Array(text.utf8).withUnsafeBytes { bytes in
      do throws(ImageError) { try put(kind, slot: slot, bytes, whenFull: whenFull) } catch {
        failure = error
      }
    }
    if let failure { throw failure }
  }
}
