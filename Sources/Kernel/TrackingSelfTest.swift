/// Tries the kernel's write tracking on small mappings of memdump's own: what the dump relies on is
/// found out by behaviour. A few milliseconds in all.
package enum TrackingSelfTest {
  /// How one behaviour was found to be.
  package struct Result: Sendable, Equatable {
    /// The behaviour, as a sentence that should be true.
    package let name: String
    /// Whether it is.
    package let passed: Bool
    /// What was seen instead; empty if it passed.
    package let detail: String
    /// What kept it from being tried, if something did.
    package let error: KernelError?
  }

  /// A behaviour, and how to try it: nil if it is as it should be, else what was seen.
  struct Behaviour: Sendable {
    let name: String
    let attempt: @Sendable () throws(KernelError) -> String?

    init(_ name: String, _ attempt: @escaping @Sendable () throws(KernelError) -> String?) {
      self.name = name
      self.attempt = attempt
    }
  }

  /// Tries everything.
  package static func run() -> [Result] {
    (WriteTrackingBehaviours.all + AddressSpaceBehaviours.all).map { behaviour in
      do throws(KernelError) {
        let seen = try behaviour.attempt()
        return Result(name: behaviour.name, passed: seen == nil, detail: seen ?? "", error: nil)
      } catch {
        return Result(name: behaviour.name, passed: false, detail: "\(error)", error: error)
      }
    }
  }
}

/// What the self-test looks at its own memory with.
struct SelfTestTracker: ~Copyable {
  let userfaultfd: Userfaultfd
  let scanner: PagemapScanner

  init(vectorCount: Int = PagemapScanner.defaultVectorCount) throws(KernelError) {
    let pagemap = try ThisThread.open("pagemap")
    userfaultfd = try Userfaultfd(owning: try Userfaultfd.open(), of: "this process")
    scanner = PagemapScanner(pagemap: pagemap, vectorCount: vectorCount)
  }

  /// Registers as a dump does.
  func register(_ range: PageRange) throws(KernelError) {
    try userfaultfd.register(range)
    try userfaultfd.clearProtection(range)
  }

  /// What a scan as a dump makes it reports, page by page; nil for pages that it does not report,
  /// and nothing at all if it reports a page twice or out of order.
  func scan(_ range: PageRange, protect: Bool) throws(KernelError) -> [PageCategories?] {
    var pages = [PageCategories?](repeating: nil, count: Int(range.pageCount))
    var end = range.start
    var isOrdered = true
    do throws(ScanFailure<Never>) {
      try scanner.scan(range, filter: .populated, protect: protect) { region in
        if region.range.start < end || region.range.end > range.end { isOrdered = false }
        if !isOrdered { return }
        end = region.range.end
        for page in 0..<region.range.pageCount {
          let index = Int((region.range.start - range.start) / pageBytes + page)
          pages[index] = region.categories
        }
      }
    } catch {
      if case .kernel(let error) = error { throw error }
    }
    return isOrdered ? pages : []
  }

  /// Which pages of `range` are populated and count as written: those too that are not tracked.
  func written(_ range: PageRange, protect: Bool = false) throws(KernelError) -> [Int] {
    let pages = try scan(range, protect: protect)
    return pages.indices.filter { index in
      guard let categories = pages[index] else { return false }
      return categories.contains(.written) || !categories.contains(.writeProtectAllowed)
    }
  }
}
