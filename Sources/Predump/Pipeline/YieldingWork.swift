internal import Kernel

/// Runs work on memory so that whoever else wants the processor has it, and that it gets done all the
/// same. Used by one thread.
///
/// Not for work that holds what others wait for, like reading the process's memory (its mmap lock) or
/// writing files (their file system's transaction): a thread that waits for the processor meanwhile
/// makes them wait, too.
struct YieldingWork {
  /// The nice value of work that got too little of the processor.
  private static let starvedNice: Int32 = 10

  private let isEnabled: Bool
  private var share = ProcessorShare()

  /// - Parameter wanted: whether to yield at all. It takes CAP_SYS_NICE to stop yielding: without, it
  ///   is not begun.
  init(wanted: Bool) {
    let held = (try? ThisThread.status().effectiveCapabilities) ?? 0
    isEnabled = wanted && Capabilities(rawValue: held).contains(.raisePriority)
  }

  mutating func run(_ body: () -> Void) {
    guard isEnabled else { return body() }
    let (began, used) = (MonotonicClock.now, ThisThread.processorNanoseconds)
    if share.isStarved(at: began) {
      let nice = ThisThread.nice
      try? ThisThread.setNice(max(nice, Self.starvedNice))
      body()
      try? ThisThread.setNice(nice)
    } else {
      try? ThisThread.setIdle(true)
      body()
      try? ThisThread.setIdle(false)
      let now = MonotonicClock.now
      share.add(
        processor: ThisThread.processorNanoseconds - used, elapsed: now - began, at: now)
    }
  }
}

/// Whether work that yields to everybody gets enough of the processor. Policy without a thread.
struct ProcessorShare {
  /// Less than one part in so many is too little.
  static let leastPart: UInt64 = 8
  /// How long it is watched before that is said (ns).
  static let windowNanoseconds: UInt64 = 100_000_000
  /// How long it holds then (ns): load changes.
  static let starvedNanoseconds: UInt64 = 1_000_000_000

  private var (processor, elapsed): (UInt64, UInt64) = (0, 0)
  private var starvedUntil: UInt64 = 0

  /// Whether the work is to press on, at a moment (ns).
  func isStarved(at now: UInt64) -> Bool { now < starvedUntil }

  /// Work has had `processor` ns of `elapsed` ns, and it is `now`.
  mutating func add(processor: UInt64, elapsed: UInt64, at now: UInt64) {
    self.processor += processor
    self.elapsed += elapsed
    guard self.elapsed >= Self.windowNanoseconds else { return }
    if self.processor * Self.leastPart < self.elapsed {
      starvedUntil = now + Self.starvedNanoseconds
    }
    (self.processor, self.elapsed) = (0, 0)
  }
}
