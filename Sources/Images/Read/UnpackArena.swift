internal import CCRIUImages
internal import CProtobufC

/// A generated message that can be read.
protocol UnpackableMessage {
  /// The generated unpack function; nil if the bytes are not this message.
  static func unpack(
    _ allocator: UnsafeMutablePointer<ProtobufCAllocator>, _ bytes: UnsafeRawBufferPointer
  ) -> UnsafeMutablePointer<Self>?
}

/// Where protobuf-c puts an unpacked message: one buffer, used from front to back and emptied by
/// the next message. A message that wants more than its share is refused, so what a hostile record
/// may allocate is bounded by its length.
final class UnpackArena {
  /// What the C callbacks see.
  private struct State {
    var base: UnsafeMutableRawPointer
    var used: Int
    var limit: Int
  }

  private static let smallest = 64 * 1024
  /// Unpacked bytes per packed byte. A `vma_entry` takes 4; records of nothing but two-byte fields
  /// would take 50.
  private static let expansion = 16

  // Both are allocated here, freed in deinit, and only handed to protobuf-c for one call.
  private let state: UnsafeMutablePointer<State>
  private let allocator: UnsafeMutablePointer<ProtobufCAllocator>
  private var capacity: Int

  init() {
    capacity = Self.smallest
    state = .allocate(capacity: 1)
    state.initialize(
      to: State(
        base: .allocate(byteCount: Self.smallest, alignment: 16), used: 0, limit: Self.smallest))
    allocator = .allocate(capacity: 1)
    allocator.initialize(
      to: ProtobufCAllocator(
        alloc: { data, count in
          guard let state = data?.assumingMemoryBound(to: State.self) else { return nil }
          let start = state.pointee.used
          // A size over Int.max arrives as a negative one.
          guard count >= 0, count <= state.pointee.limit - start else { return nil }
          state.pointee.used = min((start + count + 15) & ~15, state.pointee.limit)
          return state.pointee.base + start
        },
        free: { _, _ in },
        allocator_data: UnsafeMutableRawPointer(state)))
  }

  deinit {
    state.pointee.base.deallocate()
    state.deallocate()
    allocator.deallocate()
  }

  /// Unpacks a message, which is good until the next call; nil if the bytes are not one.
  func unpack<Message: UnpackableMessage>(_: Message.Type, _ bytes: UnsafeRawBufferPointer)
    -> UnsafeMutablePointer<Message>?
  {
    let needed = Self.smallest + bytes.count * Self.expansion
    if capacity < needed {
      state.pointee.base.deallocate()
      state.pointee.base = .allocate(byteCount: needed, alignment: 16)
      capacity = needed
    }
    state.pointee.used = 0
    state.pointee.limit = needed
    return Message.unpack(allocator, bytes)
  }
}

extension UnsafeRawBufferPointer {
  /// The bytes as protobuf-c wants them. A record may be empty, but its address must not be null.
  fileprivate var packed: UnsafePointer<UInt8>? {
    baseAddress?.assumingMemoryBound(to: UInt8.self)
  }
}

extension Criu__InventoryEntry: UnpackableMessage {
  static func unpack(
    _ allocator: UnsafeMutablePointer<ProtobufCAllocator>, _ bytes: UnsafeRawBufferPointer
  ) -> UnsafeMutablePointer<Self>? {
    criu__inventory_entry__unpack(allocator, bytes.count, bytes.packed)
  }
}

extension Criu__PagemapHead: UnpackableMessage {
  static func unpack(
    _ allocator: UnsafeMutablePointer<ProtobufCAllocator>, _ bytes: UnsafeRawBufferPointer
  ) -> UnsafeMutablePointer<Self>? {
    criu__pagemap_head__unpack(allocator, bytes.count, bytes.packed)
  }
}

extension Criu__PagemapEntry: UnpackableMessage {
  static func unpack(
    _ allocator: UnsafeMutablePointer<ProtobufCAllocator>, _ bytes: UnsafeRawBufferPointer
  ) -> UnsafeMutablePointer<Self>? {
    criu__pagemap_entry__unpack(allocator, bytes.count, bytes.packed)
  }
}

extension Criu__MmEntry: UnpackableMessage {
  static func unpack(
    _ allocator: UnsafeMutablePointer<ProtobufCAllocator>, _ bytes: UnsafeRawBufferPointer
  ) -> UnsafeMutablePointer<Self>? {
    criu__mm_entry__unpack(allocator, bytes.count, bytes.packed)
  }
}

extension Criu__StatsEntry: UnpackableMessage {
  static func unpack(
    _ allocator: UnsafeMutablePointer<ProtobufCAllocator>, _ bytes: UnsafeRawBufferPointer
  ) -> UnsafeMutablePointer<Self>? {
    criu__stats_entry__unpack(allocator, bytes.count, bytes.packed)
  }
}

extension Memdump__Record: UnpackableMessage {
  static func unpack(
    _ allocator: UnsafeMutablePointer<ProtobufCAllocator>, _ bytes: UnsafeRawBufferPointer
  ) -> UnsafeMutablePointer<Self>? {
    memdump__record__unpack(allocator, bytes.count, bytes.packed)
  }
}
