internal import Images
internal import Kernel
internal import Synchronization
internal import SystemPackage

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
/// Any thread may note and ask at any time. The halves of a slot are written one after the other: a
/// page that meets halves of two others is not told to be noted, but with the probability above.
final class PageDigests: Sendable {
  private struct Mark: Equatable {
    var high: UInt64
    var low: UInt64
  }

  // Two words for each slot, all zero at first, which is no page's mark, with the probability above.
  // They lie in `memory`, which is given back with this object; indices are taken modulo the number
  // of slots.
  private let memory: AnonymousMemory
  private nonisolated(unsafe) let words: UnsafeMutablePointer<Atomic<UInt64>>
  private let faults: EngineFaultPlan
  let slotCount: UInt64

  /// - Parameter slotCount: memory is taken for those that are used only.
  init(slotCount: UInt64, faults: EngineFaultPlan = EngineFaultPlan()) throws(KernelError) {
    let count = Int(max(slotCount, 1))
    let memory = try AnonymousMemory(byteCount: count * 16)
    guard let base = memory.bytes(at: 0, count: count * 16).baseAddress else {
      throw KernelError(call: "mmap", subject: "digests", errno: .noMemory)
    }
    words = base.bindMemory(to: Atomic<UInt64>.self, capacity: count * 2)
    self.memory = memory
    self.slotCount = UInt64(count)
    self.faults = faults
  }

  /// Whether these are the bytes that were noted last for the page at `address`.
  func isNoted(_ address: UInt64, _ page: UnsafeRawPointer) -> Bool {
    mark(at: index(address)) == Self.mark(address, page)
  }

  /// Notes the bytes of the page at `address`, which the round is about to hold.
  ///
  /// - Returns: whether they were noted already.
  func note(_ address: UInt64, _ page: UnsafeRawPointer) -> Bool {
    let (index, new) = (index(address), Self.mark(address, page))
    let old = mark(at: index)
    if old == new { return true }
    #if DEBUG
      if faults.has(.keepStaleDigest), old != Mark(high: 0, low: 0) { return false }
    #endif
    words[index].store(new.high, ordering: .relaxed)
    words[index + 1].store(new.low, ordering: .relaxed)
    return false
  }

  private func index(_ address: UInt64) -> Int { Int(address / pageBytes % slotCount) * 2 }

  private func mark(at index: Int) -> Mark {
    Mark(
      high: words[index].load(ordering: .relaxed), low: words[index + 1].load(ordering: .relaxed))
  }

  /// The address is part of it, so that a page is never taken for another one of the same bytes.
  private static func mark(_ address: UInt64, _ page: UnsafeRawPointer) -> Mark {
    let digest = pageDigest(page)
    return Mark(
      high: digest.high, low: digest.low ^ (address / pageBytes) &* 0x9e37_79b9_7f4a_7c15)
  }
}
