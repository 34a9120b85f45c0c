internal import Glibc
internal import Images
internal import Kernel
internal import SystemPackage

/// Fills the memory of processes that CRIU restores without it, in the place of `criu lazy-pages`.
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
  private var processes: [MissingMemory] = []
  private var sources: PageSources
  private let page: UnsafeMutableRawBufferPointer

  /// Waits for CRIU in `place`, with the pages of the chain in `directory`.
  init(_ directory: String, in place: borrowing Directory) throws(KernelError) {
    let listener = try ListeningSocket(local: Self.socketName, in: place)
    self.listener = listener
    connection = nil
    self.directory = directory
    sources = PageSources(directory)
    page = .allocate(byteCount: Int(pageBytes), alignment: Int(pageBytes))
  }

  // Lent out for the time of a call only.
  deinit { page.deallocate() }

  /// Takes processes from CRIU, and serves their threads, until `asked` or `end` becomes readable: the
  /// kernel's own writes (rseq, set_tid_address) need some pages before the process runs.
  ///
  /// - Parameter pages: of each process, what is missing.
  mutating func serve(
    _ pages: [Int32: RestoreDirectory.LazyPages], until asked: CInt, or end: CInt
  ) throws {
    while true {
      var isWaitedFor = false
      for process in processes {
        if try process.attend(&sources, page).isWaitedFor { isWaitedFor = true }
      }
      let ready = try Readiness.wait(
        for: [asked, end, door] + processes.map(\.descriptor), milliseconds: isWaitedFor ? 1 : -1)
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
  private mutating func receive(_ pages: [Int32: RestoreDirectory.LazyPages]) throws -> Bool {
    guard let connection = connection.take() else {
      self.connection = try listener.accept()
      return true
    }
    var word: Int32 = 0
    let isOpen = try withUnsafeMutableBytes(of: &word) { try connection.receive(into: $0) }
    if isOpen, word > 0, word != Self.finished {
      // Nothing of one whose memory CRIU has.
      processes.append(
        MissingMemory(
          word, MissingPages(try connection.receiveDescriptor(), of: "pid \(word)"),
          pages[word] ?? RestoreDirectory.LazyPages()))
    }
    self.connection = consume connection
    return isOpen
  }

  /// Begins to fill everything with `workers` threads; what is missing then never was there.
  ///
  /// - Parameter guardian: who kills the processes if we die; nil if they will not run before the end.
  mutating func fill(_ guardian: ProcessGuardian?, workers: Int) throws -> MemoryFill {
    let fill = try MemoryFill(directory, processes, guardian, workers: workers)
    processes = []
    try fill.start()
    return fill
  }

  /// Serves nobody any more, after a failure. Threads that wait go on with zeros, into a process that
  /// CRIU is then told to kill: else it would wait for them for ever.
  mutating func letGo() {
    processes = []
    connection = nil
  }
}
