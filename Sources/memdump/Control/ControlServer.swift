internal import Kernel
internal import Predump
internal import Synchronization

/// Answers commands that come over a Unix socket while a dump runs, a line each. Every answer is one
/// line of JSON.
final class ControlServer: Sendable {
  /// What may be asked for.
  enum Command: String, CaseIterable { case status, final, abort }

  /// The most bytes of a command.
  private static let lineLimit = 64
  /// How long who connected may say nothing, or take no answer (ns); nobody else gets a turn meanwhile.
  private static let patienceNanoseconds: UInt64 = 5_000_000_000

  private let status: StatusLine
  private let cancellation: Cancellation
  private let takesFinalRound: Bool
  private let isOver = Atomic<Bool>(false)
  private let done = BlockingQueue<Void>()
  private let listener: Listener

  /// Listens at `path`; a socket that is left there, and that nobody listens at, is replaced.
  ///
  /// - Parameter takesFinalRound: whether there is a last round to ask for.
  init(
    at path: String, status: StatusLine, cancellation: Cancellation, takesFinalRound: Bool
  ) throws(ChannelError) {
    self.status = status
    self.cancellation = cancellation
    self.takesFinalRound = takesFinalRound
    listener = try Listener(.unix(path: path), replacesStale: true)
    do throws(KernelError) {
      _ = try OSThread(name: "memdump-control") { [self] in serve() }
    } catch { throw ChannelError(error) }
  }

  /// Listens at `path`, if there is one.
  static func open(
    _ path: String?, _ status: StatusLine, _ cancellation: Cancellation,
    takesFinalRound: Bool = true
  ) throws(CommandFailure) -> ControlServer? {
    guard let path else { return nil }
    do throws(ChannelError) {
      return try ControlServer(
        at: path, status: status, cancellation: cancellation, takesFinalRound: takesFinalRound)
    } catch { throw CommandFailure(.failure, kind: "control", "--control \(error)") }
  }

  /// Removes the socket; later commands find nobody.
  func finish() {
    isOver.store(true, ordering: .releasing)
    _ = done.take()
    listener.remove()
  }

  private func serve() {
    // This thread needs no power at all.
    try? ThisThread.keepCapabilities([])
    while !isOver.load(ordering: .acquiring) {
      guard case .channel(let channel)? = try? listener.accept(milliseconds: 50) else {
        continue
      }
      // Who goes away, or says nothing, is done.
      try? answer(channel)
    }
    done.close()
  }

  private func answer(_ channel: ByteChannel) throws(ChannelError) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.lineLimit, alignment: 1)
    defer { buffer.deallocate() }
    var line: [UInt8] = []
    var deadline = MonotonicClock.now + Self.patienceNanoseconds
    while !isOver.load(ordering: .acquiring), MonotonicClock.now < deadline {
      switch try channel.read(into: buffer) {
      case .ended: return
      case .mustWait: try wait(channel, forRoom: false)
      case .moved(let count):
        deadline = MonotonicClock.now + Self.patienceNanoseconds
        for byte in buffer[..<count] {
          if byte != 0x0a {
            line.append(byte)
            if line.count > Self.lineLimit { return }
            continue
          }
          try send(carryOut(String(decoding: line, as: UTF8.self)), channel)
          line = []
        }
      }
    }
  }

  private func send(_ text: String, _ channel: ByteChannel) throws(ChannelError) {
    var bytes = Array(text.utf8)[...]
    let deadline = MonotonicClock.now + Self.patienceNanoseconds
    while !bytes.isEmpty, MonotonicClock.now < deadline {
      var progress = Result<ByteChannel.Progress, ChannelError>.success(.ended)
      bytes.withUnsafeBytes { rest in
        progress = Result { () throws(ChannelError) in try channel.write(rest) }
      }
      switch try progress.get() {
      case .ended: return
      case .mustWait: try wait(channel, forRoom: true)
      case .moved(let count): bytes = bytes.dropFirst(count)
      }
    }
  }

  private func wait(_ channel: ByteChannel, forRoom: Bool) throws(ChannelError) {
    do throws(KernelError) {
      try channel.wait(forInput: !forRoom, forRoom: forRoom, milliseconds: 50)
    } catch { throw ChannelError(error) }
  }

  /// - Returns: the answer.
  private func carryOut(_ text: String) -> String {
    guard let command = Command(rawValue: text) else {
      let known = Command.allCases.map(\.rawValue).joined(separator: ", ")
      return refusal("there is no such command, only: \(known)")
    }
    let state = status.state
    if command == .status { return JSONLine(event: "status", body: state).text }
    if state.phase == .freezing || state.phase == .writing {
      return refusal("too late: the last round is under way")
    }
    if cancellation.isCancelled { return refusal("too late: the dump is being ended") }
    switch command {
    case .final:
      guard takesFinalRound else { return refusal("this dump has no last round (--no-final)") }
      if cancellation.wantsFinal { return refusal("the last round was asked for already") }
      cancellation.requestFinal()
    default: cancellation.cancel()
    }
    return JSONLine(event: "accepted", body: AcceptedBody(command: command.rawValue)).text
  }

  private func refusal(_ message: String) -> String {
    JSONLine(event: "refused", body: RefusedBody(message: message)).text
  }

  private struct AcceptedBody: Encodable { let command: String }
  private struct RefusedBody: Encodable { let message: String }
}
