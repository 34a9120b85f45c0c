/// The kernel's short way of a scan, which `PagemapScanner.isStill` asks for: it says of a page
/// whether it was written, and no more. Whether holes then count as written differs from kernel to
/// kernel (those without a page table do not, on some), and a hole that does not would be taken for
/// the page that was there: this is tried out, on memory of memdump's own.
package enum ShortWay {
  /// Whether pages that vanished are told from unchanged ones.
  package static func isSafe() -> Bool { (try? isFoundSafe()) ?? false }

  private static func isFoundSafe() throws(KernelError) -> Bool {
    let (tablePages, dontNeed): (Int, CInt) = (512, 4)  // MADV_DONTNEED
    let memory = try SelfTestMemory(
      pageCount: 3 * tablePages, alignment: UInt64(tablePages) * pageBytes)
    let tracker = try SelfTestTracker()
    try tracker.register(memory.range)
    // The first page table is full, the second one is there and half empty, the third is not.
    let full = memory.page(0, count: tablePages)
    for index in 0..<tablePages { memory.store(1, page: index) }
    for index in stride(from: tablePages, to: 2 * tablePages, by: 2) {
      memory.store(1, page: index)
    }
    _ = try tracker.scan(memory.range, protect: true)
    guard try tracker.scanner.isStill(full) else { return false }
    for hole in [tablePages + 1, 2 * tablePages, 3 * tablePages - 1] {
      if try tracker.scanner.isStill(memory.page(hole)) { return false }
    }
    if try tracker.scanner.isStill(memory.page(2 * tablePages, count: tablePages)) { return false }
    memory.store(2, page: 7)
    if try tracker.scanner.isStill(full) { return false }
    _ = try tracker.scan(full, protect: true)
    try memory.advise(memory.page(9), dontNeed)
    if try tracker.scanner.isStill(full) { return false }
    // All of it: the kernel may free the page table then.
    try memory.advise(full, dontNeed)
    if try tracker.scanner.isStill(memory.page(9)) { return false }
    return try !tracker.scanner.isStill(full)
  }
}
