/// Predicts how long a frozen round would take, from what the live rounds were measured to cost.
///
///     freeze = stops + scan + reads * perRead + bytes * perByte + compared bytes * perComparedByte
///
/// The copy's part is corrected by what a part of it took just now, when it was rehearsed.
/// Compression and writing are not in it: they happen after the thaw.
struct FreezeEstimate: Sendable, Equatable {
  /// A read system call that finds its pages in the cache, measured without bytes (ns).
  private static let perReadNanoseconds = 1_200.0
  /// A first guess for a copy's speed (bytes/ns), until a round was measured.
  private static let defaultBytesPerNanosecond = 2.0
  /// What one thread takes to stop and to let go (ns), until a freeze was measured.
  private static let perThreadNanoseconds = 30_000.0
  /// Handing the freeze over between threads, listing VMAs (ns).
  private static let fixedNanoseconds = 400_000.0

  /// As above, for a comparison: reading and digesting, on all processors.
  private static let defaultComparedBytesPerNanosecond = 4.0

  /// What a second thread adds to the first one's speed (measured), and so each one up to the fourth.
  private static let perFurtherThread = 0.7
  /// So many reads are not worth waking another thread.
  private static let readsOfOneThread: UInt64 = 32

  /// How far a rehearsed copy may be from what is known without one.
  private static let rehearsalLimits = 0.5...8.0

  /// Threads that copy in a freeze.
  var copyThreads = 1
  private var bytesPerNanosecond: Double?
  private var comparedBytesPerNanosecond: Double?
  private var scanNanoseconds: Double = 0
  /// What copying scattered pages took when it was rehearsed, over what is known without that.
  private var copyFactor = 1.0
  /// Of rounds that went over a link: bytes that it took a nanosecond until they were acknowledged,
  /// bytes of each page, and what even the smallest round takes (ns).
  private var sentBytesPerNanosecond: Double?
  private var sentBytesPerPage = 4096.0
  private var sendingNanoseconds: Double?

  private var speedup: Double { 1 + Self.perFurtherThread * Double(min(copyThreads, 4) - 1) }

  /// A live round copied so many bytes in so many reads and so much time.
  mutating func observeCopy(bytes: UInt64, reads: UInt64, nanoseconds: UInt64) {
    let transfer = Double(nanoseconds) - Double(reads) * Self.perReadNanoseconds
    guard bytes >= 1 << 20, transfer > 0 else { return }
    let rate = min(Double(bytes) / transfer, 20)
    // The newer half of the truth: rounds differ in how scattered they are.
    bytesPerNanosecond = bytesPerNanosecond.map { ($0 + rate) / 2 } ?? rate
  }

  /// A live round compared so much shared memory with the chain in so much time.
  mutating func observeComparison(bytes: UInt64, nanoseconds: UInt64) {
    guard bytes >= 1 << 20, nanoseconds > 0 else { return }
    let rate = min(Double(bytes) / Double(nanoseconds), 100)
    comparedBytesPerNanosecond = comparedBytesPerNanosecond.map { ($0 + rate) / 2 } ?? rate
  }

  /// Counting the dirty pages, which is the scan of a freeze, took so much time.
  mutating func observeScan(nanoseconds: UInt64) { scanNanoseconds = Double(nanoseconds) }

  /// Copying so many pages, each a read of its own, as a freeze does took so long just now.
  mutating func observeRehearsal(pages: UInt64, nanoseconds: UInt64) {
    guard pages > 0 else { return }
    let factor = Double(nanoseconds) / (Double(pages) * scatteredPageNanoseconds)
    copyFactor = min(
      max(factor, Self.rehearsalLimits.lowerBound), Self.rehearsalLimits.upperBound)
  }

  /// A page that is a read of its own, among many (ns).
  private var scatteredPageNanoseconds: Double {
    (4096 / (bytesPerNanosecond ?? Self.defaultBytesPerNanosecond) + Self.perReadNanoseconds)
      / speedup
  }

  /// A live round of so many pages took so long from its begin, or the acknowledgement of the round
  /// before it if that came later, to its own.
  mutating func observeSending(pages: UInt64, bytes: UInt64, nanoseconds: UInt64) {
    guard nanoseconds > 0 else { return }
    let time = Double(nanoseconds)
    sendingNanoseconds = min(sendingNanoseconds ?? time, time)
    guard bytes >= 1 << 20, pages > 0 else { return }
    let rate = Double(bytes) / time
    sentBytesPerNanosecond = sentBytesPerNanosecond.map { ($0 + rate) / 2 } ?? rate
    sentBytesPerPage = Double(bytes) / Double(pages)
  }

  /// How long a last round of so many pages would be on its way (ns); 0 until one was.
  func sendingNanoseconds(pages: UInt64) -> UInt64 {
    guard let sentBytesPerNanosecond, let sendingNanoseconds else { return 0 }
    let transfer = Double(pages) * sentBytesPerPage / sentBytesPerNanosecond
    // Of the first round the time is that of its bytes; a later, smaller one shows what is fixed.
    return UInt64(max(transfer, min(sendingNanoseconds, transfer * 2)))
  }

  /// Pages, each a read of its own, that a freeze could copy in so much time.
  func pages(in nanoseconds: UInt64) -> UInt64 {
    UInt64(Double(nanoseconds) / (scatteredPageNanoseconds * copyFactor))
  }

  /// The freeze that a last round would take now (ns).
  ///
  /// - Parameter comparedPages: of shared memory, that are read and compared with the chain.
  func nanoseconds(pages: UInt64, reads: UInt64, threads: Int, comparedPages: UInt64 = 0)
    -> UInt64
  {
    let bytes = Double(pages) * 4096
    let oneThread =
      bytes / (bytesPerNanosecond ?? Self.defaultBytesPerNanosecond)
      + Double(reads) * Self.perReadNanoseconds
    let copy = reads > Self.readsOfOneThread ? oneThread / speedup * copyFactor : oneThread
    let stops = Self.fixedNanoseconds + Double(threads) * Self.perThreadNanoseconds
    let comparison =
      Double(comparedPages) * 4096
      / (comparedBytesPerNanosecond ?? Self.defaultComparedBytesPerNanosecond)
    return UInt64(
      stops + comparison + scanNanoseconds + copy)
  }
}
