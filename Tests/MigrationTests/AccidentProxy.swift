import Foundation
import Kernel
import Synchronization

/// Stands between the two sides of a migration, and lets something happen at one moment.
final class AccidentProxy: Sendable {
  /// When it happens.
  enum Moment: CustomStringConvertible {
    /// After so many bytes of rounds.
    case bytes(Int)
    /// Before, or after, the first message of this kind is passed on (`FrameKind`).
    case message(UInt8, isPassed: Bool)

    var description: String {
      switch self {
      case .bytes(let count): "\(count) bytes of rounds"
      case .message(let kind, let isPassed): "\(isPassed ? "after" : "before") message \(kind)"
      }
    }
  }

  /// What becomes of connections then.
  enum Link { case stays, isCut, isCutForGood }

  private let moment: Moment
  private let act: @Sendable () -> Link
  private let target: String
  private let hasActed = Atomic<Bool>(false)
  private let isCut = Atomic<Bool>(false)
  private let isClosed = Atomic<Bool>(false)
  private let roundBytes = Atomic<Int>(0)
  private let generation = Atomic<Int>(0)

  /// Whether the moment came.
  var acted: Bool { hasActed.load(ordering: .acquiring) }
  /// Bytes of rounds that passed.
  var passed: Int { roundBytes.load(ordering: .acquiring) }

  /// Listens at `path` and passes on to `target`, until `close`.
  init(at path: String, to target: String, _ moment: Moment, _ act: @escaping @Sendable () -> Link)
    throws
  {
    self.moment = moment
    self.act = act
    self.target = target
    let ready = BlockingQueue<Void>()
    _ = try OSThread(name: "proxy") { [self] in
      guard let listener = try? Listener(.unix(path: path)) else { return ready.close() }
      ready.close()
      var isControl = true
      while !isClosed.load(ordering: .acquiring) {
        guard case .channel(let channel)? = try? listener.accept(milliseconds: 20) else { continue }
        if isCut.load(ordering: .acquiring) { continue }
        let first = isControl
        isControl = false
        _ = try? OSThread(name: "proxy-pass") { [self] in
          guard let other = try? Endpoint.unix(path: target).connect(milliseconds: 1000) else {
            return
          }
          try? pass(channel, other, isControl: first)
        }
      }
    }
    _ = ready.take()
  }

  func close() { isClosed.store(true, ordering: .releasing) }

  /// Lets it happen; false if this connection ends.
  private func happen() -> Bool {
    let (isFirst, _) = hasActed.compareExchange(
      expected: false, desired: true, ordering: .acquiringAndReleasing)
    guard isFirst else { return true }
    switch act() {
    case .stays: return true
    case .isCutForGood:
      isCut.store(true, ordering: .releasing)
      fallthrough
    case .isCut:
      generation.add(1, ordering: .acquiringAndReleasing)
      return false
    }
  }

  private func pass(_ source: ByteChannel, _ target: ByteChannel, isControl: Bool) throws {
    let own = generation.load(ordering: .acquiring)
    var (forth, back) = (Frames(), Frames())
    while generation.load(ordering: .acquiring) == own, !isClosed.load(ordering: .acquiring) {
      let isIdle = try !step(source, target, &forth, isControl: isControl, counts: !isControl)
      let isBackIdle = try !step(target, source, &back, isControl: isControl, counts: false)
      if forth.isOver || back.isOver { return }
      if isIdle && isBackIdle { try source.wait(forRoom: false, milliseconds: 1) }
    }
  }

  /// What came of one direction and is not passed on yet.
  private struct Frames {
    var bytes: [UInt8] = []
    var isOver = false

    /// The first whole frame.
    mutating func next() -> [UInt8]? {
      guard bytes.count >= 16 else { return nil }
      let count = 16 + (0..<4).reduce(0) { $0 | Int(bytes[$1]) << (8 * $1) }
      guard bytes.count >= count else { return nil }
      defer { bytes.removeFirst(count) }
      return Array(bytes[..<count])
    }
  }

  /// Passes on what has come. True if something has.
  private func step(
    _ from: ByteChannel, _ to: ByteChannel, _ frames: inout Frames, isControl: Bool, counts: Bool
  ) throws -> Bool {
    var block = [UInt8](repeating: 0, count: 65536)
    let progress = try block.withUnsafeMutableBytes { try from.read(into: $0) }
    switch progress {
    case .mustWait: return false
    case .ended:
      frames.isOver = true
      return false
    case .moved(let count): frames.bytes += block[..<count]
    }
    guard isControl else {
      let bytes = frames.bytes
      frames.bytes = []
      var limit = Int.max
      if case .bytes(let count) = moment, counts { limit = count }
      let room = max(0, limit - passed)
      try write(Array(bytes.prefix(room)), to)
      if counts { roundBytes.add(min(room, bytes.count), ordering: .acquiringAndReleasing) }
      if room >= bytes.count { return true }
      guard happen() else {
        frames.isOver = true
        return false
      }
      try write(Array(bytes.dropFirst(room)), to)
      roundBytes.add(bytes.count - room, ordering: .acquiringAndReleasing)
      return true
    }
    while let frame = frames.next() {
      if case .message(frame[4], let isPassed) = moment {
        if isPassed { try write(frame, to) }
        guard happen() else {
          frames.isOver = true
          return false
        }
        if !isPassed { try write(frame, to) }
      } else {
        try write(frame, to)
      }
    }
    return true
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
