import Foundation
import Kernel
import Synchronization

/// Stands between the two sides of a migration, and lets something happen at some moments, one after
/// the other.
final class AccidentProxy: Sendable {
  /// When it happens.
  enum Moment: CustomStringConvertible, Sendable {
    /// After so many bytes of rounds, since the moment before.
    case bytes(Int)
    /// Before, or after, a message of this kind is passed on (`FrameKind`) over the migration's own
    /// connection: the first since the moment before.
    case message(UInt8, isPassed: Bool)
    /// The same of the rounds' connection, and which one of the kind.
    case frame(UInt8, number: Int = 1, isPassed: Bool)

    var description: String {
      switch self {
      case .bytes(let count): "\(count) bytes of rounds"
      case .message(let kind, let isPassed): "\(isPassed ? "after" : "before") message \(kind)"
      case .frame(let kind, let number, let isPassed):
        "\(isPassed ? "after" : "before") frame \(number) of kind \(kind)"
      }
    }
  }

  /// What becomes of connections then.
  enum Link { case stays, isCut, isCutOfRounds, isCutOfControl, isCutForGood }

  private struct State {
    var moments: [Moment]
    /// What passed since the moment before.
    var bytes = 0
    var frames = 0
    /// How often connections were cut: those of the rounds, and the others.
    var generations = [0, 0]
    var actCount = 0
    var passed = 0
    var isCut = false
    var isClosed = false
  }

  private let done = BlockingQueue<Void>()
  private let act: @Sendable () -> Link
  private let target: String
  private let state: Mutex<State>

  /// How often something happened.
  var actCount: Int { state.withLock { $0.actCount } }
  /// Bytes of rounds that passed.
  var passed: Int { state.withLock { $0.passed } }

  /// Listens at `path` and passes on to `target`, until `close`.
  init(
    at path: String, to target: String, _ moments: [Moment], _ act: @escaping @Sendable () -> Link
  ) throws {
    state = Mutex(State(moments: moments))
    self.act = act
    self.target = target
    let ready = BlockingQueue<Void>()
    _ = try OSThread(name: "proxy") { [self] in
      defer { done.close() }
      guard let listener = try? Listener(.unix(path: path)) else { return ready.close() }
      defer { listener.remove() }
      ready.close()
      while !isClosed {
        guard case .channel(let channel)? = try? listener.accept(milliseconds: 20) else { continue }
        if state.withLock({ $0.isCut }) { continue }
        _ = try? OSThread(name: "proxy-pass") { [self] in
          guard let other = try? Endpoint.unix(path: target).connect(milliseconds: 1000) else {
            return
          }
          try? pass(channel, other)
        }
      }
    }
    _ = ready.take()
  }

  /// Ends all connections; another one may listen in its place then.
  func close() {
    state.withLock { $0.isClosed = true }
    _ = done.take()
  }

  private var isClosed: Bool { state.withLock { $0.isClosed } }

  /// Which of `generations` a connection belongs to that begins with a frame of this kind.
  private static func index(of kind: UInt8) -> Int { kind >= 32 ? 1 : 0 }

  private func generation(_ index: Int) -> Int { state.withLock { $0.generations[index] } }

  /// Lets the moment's accident happen.
  private func happen() {
    state.withLock {
      $0.moments.removeFirst()
      $0.actCount += 1
      ($0.bytes, $0.frames) = (0, 0)
    }
    let link = act()
    state.withLock {
      if link == .isCutForGood { $0.isCut = true }
      if link != .stays, link != .isCutOfControl { $0.generations[0] += 1 }
      if link != .stays, link != .isCutOfRounds { $0.generations[1] += 1 }
    }
  }

  private func pass(_ source: ByteChannel, _ target: ByteChannel) throws {
    var (forth, back) = (Frames(), Frames())
    // The first word tells whose connection it is.
    while forth.bytes.count < 5 {
      if try !forth.read(source) { try source.wait(forRoom: false, milliseconds: 1) }
      if forth.isOver || isClosed { return }
    }
    let index = Self.index(of: forth.bytes[4])
    let own = generation(index)
    var isFirst = true
    while generation(index) == own, !isClosed {
      let isIdle = try !forth.read(source) && !isFirst
      isFirst = false
      let isBackIdle = try !back.read(target)
      if !isIdle { try passOn(&forth, target, index, own, isForth: true) }
      if !isBackIdle { try passOn(&back, source, index, own, isForth: false) }
      if forth.isOver || back.isOver { return }
      if isIdle && isBackIdle { try source.wait(forRoom: false, milliseconds: 1) }
    }
  }

  /// What came of one direction and is not passed on yet.
  private struct Frames {
    var bytes: [UInt8] = []
    var isOver = false

    /// Takes what has come. True if something has.
    mutating func read(_ channel: ByteChannel) throws -> Bool {
      var block = [UInt8](repeating: 0, count: 65536)
      switch try block.withUnsafeMutableBytes({ try channel.read(into: $0) }) {
      case .mustWait: return false
      case .ended:
        isOver = true
        return false
      case .moved(let count):
        bytes += block[..<count]
        return true
      }
    }

    /// The first whole frame.
    mutating func next() -> [UInt8]? {
      guard bytes.count >= 16 else { return nil }
      let count = 16 + (0..<4).reduce(0) { $0 | Int(bytes[$1]) << (8 * $1) }
      guard bytes.count >= count else { return nil }
      defer { bytes.removeFirst(count) }
      return Array(bytes[..<count])
    }
  }

  /// Passes on the whole frames that have come, as long as the connection stands.
  private func passOn(
    _ frames: inout Frames, _ to: ByteChannel, _ index: Int, _ own: Int, isForth: Bool
  ) throws {
    while generation(index) == own, let frame = frames.next() {
      let stop = count(frame, ofRounds: index == 0, isForth: isForth)
      guard let stop else {
        try write(frame, to)
        continue
      }
      try write(Array(frame.prefix(stop)), to)
      happen()
      if generation(index) == own { try write(Array(frame.dropFirst(stop)), to) }
    }
  }

  /// How many bytes of the frame pass before the moment; nil if it does not come now.
  private func count(_ frame: [UInt8], ofRounds isRounds: Bool, isForth: Bool) -> Int? {
    state.withLock { state in
      let before = state.bytes
      if isRounds && isForth {
        state.bytes += frame.count
        state.passed += frame.count
      }
      switch state.moments.first {
      case .bytes(let limit) where isRounds && isForth && state.bytes > limit:
        return max(0, limit - before)
      case .message(frame[4], let isPassed) where !isRounds: return isPassed ? frame.count : 0
      case .frame(frame[4], let number, let isPassed) where isRounds:
        state.frames += 1
        return state.frames < number ? nil : isPassed ? frame.count : 0
      default: return nil
      }
    }
  }

  private func write(_ bytes: [UInt8], _ channel: ByteChannel) throws {
    try bytes.withUnsafeBytes { all in
      var rest = all
      while !rest.isEmpty {
        switch try channel.write(rest) {
        case .moved(let count): rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        case .mustWait: try channel.wait(forInput: false, forRoom: true, milliseconds: 100)
        case .ended: return
        }
      }
    }
  }
}
