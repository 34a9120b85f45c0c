internal import SystemPackage

/// Behaviours of tracked memory that is moved, merged, or made of huge pages.
enum AddressSpaceBehaviours {
  private static let pageCount = 8
  private static let hugeBytes: UInt64 = 2 << 20
  /// MADV_HUGEPAGE and MADV_COLLAPSE.
  private static let (hugePage, collapse): (CInt, CInt) = (14, 25)

  static let all = [
    TrackingSelfTest.Behaviour("a huge page stays tracked when a part is written", hugePages),
    TrackingSelfTest.Behaviour("a collapse into huge pages hides no write", collapsing),
    TrackingSelfTest.Behaviour("moved memory is no longer registered", moved),
    TrackingSelfTest.Behaviour("registering anew finds writes after a merge", merged),
  ]

  private static func hugePages() throws(KernelError) -> String? {
    let memory = try SelfTestMemory(
      pageCount: Int(hugeBytes / pageBytes), alignment: hugeBytes)
    let tracker = try SelfTestTracker()
    try tracker.register(memory.range)
    // Where there are no huge pages, the same is tried with small ones.
    do throws(KernelError) { try memory.advise(memory.range, hugePage) } catch {
      if error.errno != .invalidArgument { throw error }
    }
    memory.storeAll(1)
    _ = try tracker.scan(memory.range, protect: true)
    for index in [7, 300] {
      memory.store(2, page: index)
      let pages = try tracker.scan(memory.range, protect: true)
      if pages.contains(nil) || pages.isEmpty { return "a page is no longer reported" }
      guard pages[index]?.contains(.written) ?? false else { return "a store was not seen" }
      if pages.contains(where: { !($0 ?? []).contains(.writeProtectAllowed) }) {
        return "a page is no longer tracked"
      }
    }
    return nil
  }

  private static func collapsing() throws(KernelError) -> String? {
    let memory = try SelfTestMemory(
      pageCount: Int(hugeBytes / pageBytes), alignment: hugeBytes)
    let tracker = try SelfTestTracker()
    try tracker.register(memory.range)
    memory.storeAll(1)
    _ = try tracker.scan(memory.range, protect: true)
    memory.store(2, page: 9)
    // Refused where pages are protected (EINVAL), and where the kernel has no such call.
    do throws(KernelError) { try memory.advise(memory.range, collapse) } catch {}
    memory.store(3, page: 11)
    let written = try tracker.written(memory.range)
    return written.contains(9) && written.contains(11) ? nil : "written: \(written)"
  }

  private static func moved() throws(KernelError) -> String? {
    var memory = try SelfTestMemory(pageCount: pageCount)
    let place = try SelfTestMemory(pageCount: 4)
    let tracker = try SelfTestTracker()
    try tracker.register(memory.range)
    memory.storeAll(1)
    _ = try tracker.scan(memory.range, protect: true)
    try memory.move(memory.page(4, count: 4), over: place.range)
    if try tracker.scanner.isRegistered(place.range.start) { return "it is still registered" }
    let written = try tracker.written(place.range)
    return written == [0, 1, 2, 3] ? nil : "written: \(written), not all"
  }

  /// A page goes away and comes back between registered neighbours: the kernel merges them, and
  /// takes the registration off all, but leaves the neighbours' protect bits in the page table.
  private static func merged() throws(KernelError) -> String? {
    var memory = try SelfTestMemory(pageCount: pageCount)
    var place = try SelfTestMemory(pageCount: 1)
    let tracker = try SelfTestTracker()
    try tracker.register(memory.range)
    memory.storeAll(1)
    _ = try tracker.scan(memory.range, protect: true)
    try memory.move(memory.page(2), over: place.range)
    try tracker.register(memory.range)
    try tracker.register(place.range)
    _ = try tracker.scan(memory.range, protect: true)
    try place.move(place.range, over: memory.page(2))
    for index in 1...3 { memory.store(2, page: index) }
    try tracker.register(memory.range)
    let written = try tracker.written(memory.range)
    return written.filter { (1...3).contains($0) } == [1, 2, 3] ? nil : "written: \(written)"
  }
}
