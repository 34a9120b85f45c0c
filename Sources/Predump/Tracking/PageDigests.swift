internal import Images
internal import Kernel

/// Digests of pages as the chain holds them: what is unchanged is told without reading images back.
///
/// One slot a page, at the page's number modulo the number of slots, 16 bytes each (0.4 % of what it
/// covers). Pages that share a slot push each other out, which costs storing a page once more and
/// nothing else, so the memory can be bounded.
///
/// A page whose digest is found may be taken from the parent only if the round before holds it
/// (`StreamHistory.held`); and whatever a round stores must be noted, or a page that goes back to
/// older bytes would be taken for what the chain holds.
///
/// 128 bits, because two pages of one digest would lose a write: with 64, 2^40 comparisons (a dump of
/// 400 TiB) would meet one with a probability of 2^-24, with 128 of 2^-88; and they cost the same.
///
/// Sendable because comparisons read it on several threads only while the engine's thread, which
/// alone writes it, waits for them.
final class PageDigests: @unchecked Sendable {
  private struct Slot: Equatable {
    var high: UInt64
    var low: UInt64
  }

  // The slots lie in `memory`, which is given back with this object; the index is taken modulo
  // their count. All zero at first: no page's digest, with the probability above.
  private let memory: AnonymousMemory
  private let slots: UnsafeMutablePointer<Slot>
  private let faults: EngineFaultPlan
  let slotCount: UInt64

  /// - Parameter slotCount: memory is taken for those that are used only.
  init(slotCount: UInt64, faults: EngineFaultPlan = EngineFaultPlan()) throws(KernelError) {
    let count = Int(max(slotCount, 1))
    let byteCount = count * MemoryLayout<Slot>.stride
    let memory = try AnonymousMemory(byteCount: byteCount)
    slots = memory.bytes(at: 0, count: byteCount).bindMemory(to: Slot.self).baseAddress
      .unsafelyUnwrapped
    self.memory = memory
    self.slotCount = UInt64(count)
    self.faults = faults
  }

  /// Whether these are the bytes that were noted last for the page at `address`.
  func isNoted(_ address: UInt64, _ page: UnsafeRawPointer) -> Bool {
    slots[index(address)] == Self.slot(address, page)
  }

  /// Notes the bytes of the page at `address`, which the round is about to hold.
  ///
  /// - Returns: whether they were noted already.
  func note(_ address: UInt64, _ page: UnsafeRawPointer) -> Bool {
    let (index, slot) = (index(address), Self.slot(address, page))
    if slots[index] == slot { return true }
    #if DEBUG
      let isKept = faults.has(.keepStaleDigest) && slots[index] != Slot(high: 0, low: 0)
      if isKept { return false }
    #endif
    slots[index] = slot
    return false
  }

  private func index(_ address: UInt64) -> Int { Int(address / pageBytes % slotCount) }

  /// The address is part of it, so that a page is never taken for another one of the same bytes.
  private static func slot(_ address: UInt64, _ page: UnsafeRawPointer) -> Slot {
    let digest = pageDigest(page)
    return Slot(
      high: digest.high, low: digest.low ^ (address / pageBytes) &* 0x9e37_79b9_7f4a_7c15)
  }
}
