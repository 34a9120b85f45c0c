internal import Glibc
internal import Images
internal import Kernel
internal import SystemPackage

/// Fills the memory of processes that CRIU restores without it, before they run: what
/// `criu lazy-pages` is for processes that run already.
///
/// CRIU connects to `lazy-pages.socket` in its working directory. For each process it sends the pid
/// (i32; negative for a zombie, which has no memory) and then the process's userfaultfd; a last word
/// when all run. (criu: uffd.c)
struct MemoryFiller: ~Copyable {
  private static let socketName = "lazy-pages.socket"
  private static let finished: Int32 = 0x5253_5446

  private let directory: String
  private let listener: ListeningSocket
  private var connection: ConnectedSocket?
  private var processes: [RestoredProcess] = []
  private let page: UnsafeMutableRawBufferPointer

  private final class RestoredProcess {
    let pid: Int32
    let missing: SharedMissingPages
    /// Nil for one whose memory CRIU has.
    var pages: PageSource?

    init(_ pid: Int32, _ missing: SharedMissingPages, _ pages: consuming PageSource?) {
      self.pid = pid
      self.missing = missing
      self.pages = pages
    }
  }

  /// Waits for CRIU in `place`, with the pages of the chain in `directory`.
  init(_ directory: String, in place: borrowing Directory) throws(KernelError) {
    let listener = try ListeningSocket(local: Self.socketName, in: place)
    self.listener = listener
    connection = nil
    self.directory = directory
    page = .allocate(byteCount: Int(pageBytes), alignment: Int(pageBytes))
  }

  // Lent out for the time of a call only.
  deinit { page.deallocate() }

  /// Takes processes from CRIU, and serves their threads, until `asked` or `end` becomes readable.
  ///
  /// - Parameter pages: of each process, what is missing.
  mutating func serve(_ pages: [Int32: [PageRange]], until asked: CInt, or end: CInt) throws {
    let first = 3
    while true {
      let ready = try Readiness.wait(
        for: [asked, end, door] + processes.map { $0.missing.pages.descriptor })
      for index in ready where index >= first { try serve(processes[index - first]) }
      if ready.contains(0) || ready.contains(1) { return }
      // CRIU hangs up when it ends: its exit tells why.
      if ready.contains(2), try !receive(pages) { return }
    }
  }

  /// Where CRIU knocks, or speaks.
  private var door: CInt {
    switch connection {
    case .some(let connection): return connection.descriptor.number
    case .none: return listener.descriptor.number
    }
  }

  /// Takes what CRIU says. False if it hung up.
  private mutating func receive(_ pages: [Int32: [PageRange]]) throws -> Bool {
    guard let connection = connection.take() else {
      self.connection = try listener.accept()
      return true
    }
    var word: Int32 = 0
    let isOpen = try withUnsafeMutableBytes(of: &word) { try connection.receive(into: $0) }
    if isOpen, word > 0, word != Self.finished {
      let missing = SharedMissingPages(
        MissingPages(try connection.receiveDescriptor(), of: "pid \(word)"))
      let source = pages[word] == nil ? nil : try PageSource(directory, pid: word)
      processes.append(RestoredProcess(word, missing, source))
    }
    self.connection = consume connection
    return isOpen
  }

  /// Gives pages to the threads that wait: the kernel's own writes (rseq, set_tid_address) need some
  /// before the process runs.
  private func serve(_ process: RestoredProcess) throws {
    let missing = process.missing
    while let address = try missing.pages.nextFault() {
      let count = try process.pages?.read(from: address, into: page) ?? 0
      do throws(KernelError) {
        if count == 0 {
          try missing.pages.giveZeros(at: address)
        } else {
          try missing.pages.give(UnsafeRawBufferPointer(page), at: address)
        }
      } catch {
        // It changes its memory this moment: the thread will ask again.
        guard error.errno == .resourceTemporarilyUnavailable else { throw error }
        try missing.pages.wake(at: address)
      }
    }
  }

  /// Fills everything with `workers` threads; what is missing then never was there.
  ///
  /// - Returns: the pages filled.
  mutating func fill(_ pages: [Int32: [PageRange]], workers: Int) throws -> UInt64 {
    var sum: UInt64 = 0
    for process in processes {
      guard let ranges = pages[process.pid], !ranges.isEmpty else { continue }
      try MemoryFill(directory, pid: process.pid, ranges).run(process.missing, workers: workers)
      sum += ranges.reduce(0) { $0 + $1.pageCount }
    }
    processes = []
    return sum
  }

  /// Serves nobody any more, after a failure. Threads that wait go on with zeros, into a process that
  /// CRIU is then told to kill: else it would wait for them for ever.
  mutating func letGo() {
    processes = []
    connection = nil
  }
}
