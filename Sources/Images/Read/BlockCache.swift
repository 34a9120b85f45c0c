internal import Kernel

/// The decoded blocks that a composition last looked at: one for each of up to 64 rounds, so that
/// rounds that take turns do not decode the same block again and again. At most 64 × 4 MiB.
final class BlockCache {
  private struct Slot {
    var level = -1
    var blockStart: UInt64 = 0
    var count = 0
    var bytes: UnsafeMutableRawBufferPointer
  }

  private static let slotLimit = 64
  // Allocated here, freed in deinit; slices leave only as the result of `block`, which is good
  // until the next call.
  private var slots: [Slot]
  private var scratch: UnsafeMutableRawBufferPointer

  /// A cache for a chain of `levels` rounds.
  init(levels: Int) {
    slots = (0..<max(1, min(levels, Self.slotLimit))).map { _ in
      Slot(bytes: .allocate(byteCount: 0, alignment: ImageFormat.page))
    }
    scratch = .allocate(byteCount: 0, alignment: ImageFormat.page)
  }

  deinit {
    for slot in slots { slot.bytes.deallocate() }
    scratch.deallocate()
  }

  /// The decoded bytes of block `index` of the current entry of `stream`, which is round `level`.
  func block(_ index: Int, of stream: RoundStream, level: Int) throws(ImageError)
    -> UnsafeRawBufferPointer
  {
    let slot = level % slots.count
    let count = stream.decodedBytes(ofBlock: index)
    let start =
      stream.entry.range.start + UInt64(index) * UInt64(stream.pagesPerBlock) * pageBytes
    if slots[slot].level != level || slots[slot].blockStart != start || slots[slot].count != count {
      Self.grow(&slots[slot].bytes, to: count)
      Self.grow(&scratch, to: count)
      slots[slot].level = -1
      let target = UnsafeMutableRawBufferPointer(rebasing: slots[slot].bytes[..<count])
      try stream.readBlock(index, into: target, scratch: scratch)
      slots[slot].level = level
      slots[slot].blockStart = start
      slots[slot].count = count
    }
    return UnsafeRawBufferPointer(rebasing: slots[slot].bytes[..<count])
  }

  /// Forgets everything, for streams that start again.
  func clear() {
    for index in slots.indices { slots[index].level = -1 }
  }

  private static func grow(_ buffer: inout UnsafeMutableRawBufferPointer, to count: Int) {
    if buffer.count >= count { return }
    buffer.deallocate()
    buffer = .allocate(byteCount: count, alignment: ImageFormat.page)
  }
}
