package import Kernel
internal import Synchronization

/// One end of a migration's own connection.
///
/// A thread of its own shows the other end that this one lives. Messages are taken by one thread at
/// a time.
package final class MoveLink: @unchecked Sendable {
  // Sendable because `output` is only used with `mutex` held, and `input` by the one who takes.
  private let mutex = ThreadMutex()
  private let channel: ByteChannel
  private var output: FrameWriter
  private var input: FrameReader
  private let patience: LinkPatience
  private let heedsCancellation = Atomic<Bool>(true)
  private var lastHeard = MonotonicClock.now
  private var heartbeat: Heartbeat?

  /// How people call the other end.
  package var subject: String { channel.subject }

  /// Talks over `channel`, which goes both ways.
  package init(_ channel: ByteChannel, patience: LinkPatience) throws(ImageError) {
    self.channel = channel
    self.patience = patience
    output = FrameWriter(channel)
    input = FrameReader(channel)
    guard channel.hasOutput else { return }
    heartbeat = try onFile(channel.subject) { () throws(KernelError) in
      let silence = patience.silenceNanoseconds
      return try Heartbeat(nanoseconds: WireFormat.aliveNanoseconds(silence: silence)) {
        [weak self] in
        try? self?.put(.alive, [])
      }
    }
  }

  /// Says something.
  package func put(_ message: MoveMessage) throws(ImageError) {
    let (kind, payload) = message.frame
    try put(kind, payload)
  }

  /// Sends an image: the file `name` in `directory`.
  package func putFile(_ name: String, from directory: borrowing Directory) throws(ImageError) {
    let path = directory.join(name)
    let blockBytes = 256 << 10
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: blockBytes, alignment: 16)
    defer { buffer.deallocate() }
    var digest = try onFile(path) { () throws(KernelError) in try RunningDigest() }
    let file = try onFile(path) { () throws(KernelError) in
      File(try directory.openFile(name), path: path)
    }
    try put(.beginFile(name))
    var offset: UInt64 = 0
    while true {
      let count = try onFile(path) { () throws(KernelError) in
        try file.read(into: buffer, at: offset)
      }
      if count == 0 { break }
      let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
      digest.add(bytes)
      try put(.data, Array(bytes))
      offset += UInt64(count)
    }
    try put(.endFile(byteCount: offset, digest: digest.value))
  }

  /// The next message, waiting for it.
  ///
  /// - Throws: `.link` if the other end is gone, is silent for too long, or the caller wants to stop;
  ///   `.stream` if what came is none of ours.
  package func take() throws(ImageError) -> MoveMessage {
    while true {
      if let message = try take(within: FrameReader.sliceMilliseconds) { return message }
    }
  }

  /// The next message if it comes within `milliseconds`. Throws as `take`.
  package func take(within milliseconds: Int32) throws(ImageError) -> MoveMessage? {
    let deadline = MonotonicClock.now &+ UInt64(milliseconds) &* 1_000_000
    while true {
      switch try input.takeWithoutWaiting() {
      case .frame(let header, let payload):
        lastHeard = MonotonicClock.now
        if header.kind == .alive { continue }
        return try MoveMessage(header, payload, from: subject)
      case .ended: throw .link(subject, "the other side is gone")
      case .none: break
      }
      if isCancelled { throw .link(subject, "stopped by request") }
      let now = MonotonicClock.now
      if now &- lastHeard >= patience.silenceNanoseconds {
        throw .link(
          subject, "the other side was silent for \(patience.silenceNanoseconds / 1_000_000_000) s")
      }
      if now >= deadline { return nil }
      let left = (deadline - now) / 1_000_000 + 1
      _ = try onFile(subject) { () throws(KernelError) in
        try channel.wait(forRoom: false, milliseconds: Int32(min(left, 100)))
      }
    }
  }

  /// From now on waits on, whoever wants to stop.
  package func ignoreCancellation() { heedsCancellation.store(false, ordering: .releasing) }

  private var isCancelled: Bool {
    heedsCancellation.load(ordering: .acquiring) && patience.isCancelled()
  }

  /// What came before somebody was there to take it counts as heard now: nobody took anything while
  /// rounds went over the other connection.
  package func resume() { lastHeard = MonotonicClock.now }

  private func put(_ kind: FrameKind, _ payload: [UInt8]) throws(ImageError) {
    try mutex.withLock { () throws(ImageError) in
      let deadline = MonotonicClock.now &+ patience.silenceNanoseconds
      var failure: ImageError?
      payload.withUnsafeBytes { bytes in
        do throws(ImageError) {
          try output.put(kind, bytes) { (_) throws(ImageError) in try wait(until: deadline) }
        } catch { failure = error }
      }
      if let failure { throw failure }
    }
  }

  private func wait(until deadline: UInt64) throws(ImageError) {
    guard MonotonicClock.now < deadline else {
      throw .link(subject, "the other side takes nothing")
    }
    if isCancelled { throw .link(subject, "stopped by request") }
    _ = try onFile(subject) { () throws(KernelError) in
      try channel.wait(
        forInput: false, forRoom: true, milliseconds: FrameReader.sliceMilliseconds)
    }
  }
}
