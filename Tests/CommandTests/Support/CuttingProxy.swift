import Foundation
import Kernel
import Synchronization

/// Stands between a sender and a receiver, and does something when so many bytes have passed.
final class CuttingProxy: Sendable {
  private let passedBytes = Atomic<Int>(0)
  private let hasActed = Atomic<Bool>(false)
  private let cutCount = Atomic<Int>(0)
  private let done = BlockingQueue<Void>()

  /// Bytes that went from the sender to the receiver.
  var passed: Int { passedBytes.load(ordering: .acquiring) }
  /// How many connections were cut.
  var cuts: Int { cutCount.load(ordering: .acquiring) }
  /// Whether the stream came as far as that.
  var acted: Bool { hasActed.load(ordering: .acquiring) }

  /// Listens at `path` and passes on to `target`.
  ///
  /// - Parameters:
  ///   - bytesPerSecond: what passes at most; nil for all that there is.
  ///   - act: called after `limit` bytes; false to break the link then.
  init(
    at path: String, to target: String, limit: Int = .max, bytesPerSecond: Int? = nil,
    _ act: @escaping @Sendable () -> Bool
  ) throws {
    let listener = BlockingQueue<Void>()
    _ = try OSThread(name: "proxy") { [self] in
      defer { done.put(()) }
      guard let waiting = try? Listener(.unix(path: path)) else { return listener.close() }
      listener.close()
      guard case .channel(let sender)? = try? waiting.accept(milliseconds: 20_000),
        let receiver = try? Endpoint.unix(path: target).connect(milliseconds: 1000)
      else { return }
      try? pass(sender, receiver, limit, bytesPerSecond, act)
    }
    // Closed as soon as the sender may connect.
    _ = listener.take()
  }

  /// Listens at `path` and passes on to `target`, again and again: each connection is cut after so many
  /// bytes, and the one after all of `cuts` is left alone.
  init(at path: String, to target: String, cuts: [Int]) throws {
    let listener = BlockingQueue<Void>()
    _ = try OSThread(name: "proxy") { [self] in
      defer { done.put(()) }
      guard let waiting = try? Listener(.unix(path: path)) else { return listener.close() }
      listener.close()
      for cut in cuts + [nil] as [Int?] {
        guard case .channel(let sender)? = try? waiting.accept(milliseconds: 20_000),
          let receiver = try? Endpoint.unix(path: target).connect(milliseconds: 1000)
        else { return }
        hasActed.store(false, ordering: .releasing)
        try? pass(sender, receiver, cut.map { passed + $0 } ?? .max, nil) { false }
        if !acted { return }
        cutCount.add(1, ordering: .acquiringAndReleasing)
      }
    }
    _ = listener.take()
  }

  /// Waits until both ends are closed.
  func wait() { _ = done.take() }

  private func pass(
    _ sender: ByteChannel, _ receiver: ByteChannel, _ limit: Int, _ bytesPerSecond: Int?,
    _ act: () -> Bool
  ) throws {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)
    defer { buffer.deallocate() }
    let deadline = Date(timeIntervalSinceNow: 60)
    while Date() < deadline {
      let left = acted ? buffer.count : min(buffer.count, limit - passed)
      if left == 0 {
        hasActed.store(true, ordering: .releasing)
        if !act() { return }
        continue
      }
      let room = UnsafeMutableRawBufferPointer(rebasing: buffer[..<left])
      let forth = try sender.read(into: room)
      if case .moved(let count) = forth {
        try write(UnsafeRawBufferPointer(rebasing: buffer[..<count]), to: receiver)
        passedBytes.add(count, ordering: .acquiringAndReleasing)
        if let bytesPerSecond {
          MonotonicClock.pause(nanoseconds: UInt64(count) * 1_000_000_000 / UInt64(bytesPerSecond))
        }
      }
      let back = try receiver.read(into: buffer)
      if case .moved(let count) = back {
        try write(UnsafeRawBufferPointer(rebasing: buffer[..<count]), to: sender)
      }
      if forth == .ended || back == .ended { return }
      if forth == .mustWait && back == .mustWait {
        try sender.wait(forRoom: false, milliseconds: 1)
      }
    }
  }

  private func write(_ bytes: UnsafeRawBufferPointer, to channel: ByteChannel) throws {
    var rest = bytes
    while !rest.isEmpty {
      switch try channel.write(rest) {
      case .moved(let count): rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      case .mustWait: try channel.wait(forInput: false, forRoom: true, milliseconds: 100)
      case .ended: return
      }
    }
  }
}
