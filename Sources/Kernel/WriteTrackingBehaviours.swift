/// Behaviours of write protection itself: what counts as written, and what a scan reports.
enum WriteTrackingBehaviours {
  private typealias Behaviour = TrackingSelfTest.Behaviour
  private static let pageCount = 8
  /// MADV_DONTNEED.
  private static let dontNeed: CInt = 4

  static let all = [
    TrackingSelfTest.Behaviour("a fresh page counts as written", freshPage),
    TrackingSelfTest.Behaviour("a protected page stays clean until it is written", staysClean),
    TrackingSelfTest.Behaviour("a store after protection is seen", store),
    TrackingSelfTest.Behaviour("a write through /proc/PID/mem is seen", writeThroughProc),
    TrackingSelfTest.Behaviour("a hole is neither reported nor marked", hole),
    TrackingSelfTest.Behaviour("a dropped page vanishes, and comes back as written", dropped),
    TrackingSelfTest.Behaviour("unregistered memory is passed over", unregistered),
    TrackingSelfTest.Behaviour("a short vector loses and repeats nothing") {
      () throws(KernelError) in try shortVector(3)
    },
    TrackingSelfTest.Behaviour("a longer vector loses and repeats nothing") {
      () throws(KernelError) in try shortVector(16)
    },
  ]

  private static func freshPage() throws(KernelError) -> String? {
    let memory = try SelfTestMemory(pageCount: pageCount)
    let tracker = try SelfTestTracker()
    try tracker.register(memory.range)
    memory.store(1, page: 2)
    let written = try tracker.written(memory.range)
    return written == [2] ? nil : "written: \(written), not [2]"
  }

  private static func staysClean() throws(KernelError) -> String? {
    let memory = try SelfTestMemory(pageCount: pageCount)
    let tracker = try SelfTestTracker()
    try tracker.register(memory.range)
    memory.storeAll(1)
    let first = try tracker.written(memory.range, protect: true)
    if first.count != pageCount { return "written at first: \(first)" }
    for _ in 0..<2 {
      let written = try tracker.written(memory.range, protect: true)
      if !written.isEmpty { return "written without a write: \(written)" }
    }
    return nil
  }

  private static func store() throws(KernelError) -> String? {
    let memory = try SelfTestMemory(pageCount: pageCount)
    let tracker = try SelfTestTracker()
    try tracker.register(memory.range)
    memory.storeAll(1)
    _ = try tracker.scan(memory.range, protect: true)
    memory.store(2, page: 3)
    let written = try tracker.written(memory.range)
    if written != [3] { return "written: \(written), not [3]" }
    return memory.load(page: 3) == 2 ? nil : "the store was lost"
  }

  private static func writeThroughProc() throws(KernelError) -> String? {
    let memory = try SelfTestMemory(pageCount: pageCount)
    let tracker = try SelfTestTracker()
    try tracker.register(memory.range)
    memory.storeAll(1)
    _ = try tracker.scan(memory.range, protect: true)
    let file = try ThisThread.open("mem", writable: true)
    let address = memory.page(5).start
    var failure: KernelError?
    withUnsafeBytes(of: UInt8(2)) { bytes in
      do throws(KernelError) { try file.write(bytes, at: address) } catch { failure = error }
    }
    if let failure { throw failure }
    let written = try tracker.written(memory.range)
    return written == [5] ? nil : "written: \(written), not [5]"
  }

  private static func hole() throws(KernelError) -> String? {
    let memory = try SelfTestMemory(pageCount: pageCount)
    let tracker = try SelfTestTracker()
    try tracker.register(memory.range)
    memory.store(1, page: 0)
    for _ in 0..<2 {
      let reported = try tracker.scan(memory.range, protect: true)
      let populated = reported.indices.filter { reported[$0] != nil }
      if populated != [0] { return "populated: \(populated), not [0]" }
    }
    return nil
  }

  private static func dropped() throws(KernelError) -> String? {
    let memory = try SelfTestMemory(pageCount: pageCount)
    let tracker = try SelfTestTracker()
    try tracker.register(memory.range)
    memory.storeAll(1)
    _ = try tracker.scan(memory.range, protect: true)
    try memory.advise(memory.page(2), dontNeed)
    let after = try tracker.scan(memory.range, protect: false)
    let populated = after.indices.filter { after[$0] != nil }
    if populated != [0, 1, 3, 4, 5, 6, 7] { return "populated after the drop: \(populated)" }
    if memory.load(page: 2) != 0 { return "the dropped page is not zero" }
    let written = try tracker.written(memory.range)
    return written == [2] ? nil : "written after a read of it: \(written), not [2]"
  }

  private static func unregistered() throws(KernelError) -> String? {
    let memory = try SelfTestMemory(pageCount: pageCount)
    let tracker = try SelfTestTracker()
    memory.storeAll(1)
    if try tracker.scanner.isRegistered(memory.range.start) { return "it looks registered" }
    let reported = try tracker.scan(memory.range, protect: true)
    if reported.contains(where: { $0 != nil }) { return "a protecting scan reports it" }
    let written = try tracker.written(memory.range)
    return written.count == pageCount ? nil : "only \(written) count as written"
  }

  /// Every other page is dirty: the vector fills up every few pages, and the scan resumes.
  private static func shortVector(_ vectorCount: Int) throws(KernelError) -> String? {
    let pageCount = 70
    let memory = try SelfTestMemory(pageCount: pageCount)
    let tracker = try SelfTestTracker(vectorCount: vectorCount)
    try tracker.register(memory.range)
    memory.storeAll(1)
    _ = try tracker.scan(memory.range, protect: true)
    let dirty = Array(stride(from: 1, to: pageCount, by: 2))
    for index in dirty { memory.store(2, page: index) }
    let reported = try tracker.scan(memory.range, protect: true)
    if reported.count != pageCount { return "a page was reported twice or out of order" }
    let missing = reported.indices.filter { reported[$0] == nil }
    if !missing.isEmpty { return "not reported: \(missing)" }
    let written = reported.indices.filter { reported[$0]?.contains(.written) ?? false }
    if written != dirty { return "written: \(written)" }
    let left = try tracker.written(memory.range)
    return left.isEmpty ? nil : "not protected: \(left)"
  }
}
