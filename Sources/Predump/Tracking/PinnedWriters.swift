internal import Kernel

/// Signs that a process lets devices or the kernel write to its memory through pages that they hold
/// on to. Such a write is not seen by write protection if its page was pinned before the page was
/// protected: direct I/O in flight, aio, registered io_uring buffers.
struct PinnedWriters: Sendable, Equatable {
  /// A descriptor is open with O_DIRECT.
  var hasDirectIO = false
  /// An aio context exists.
  var hasAIO = false
  /// An io_uring exists.
  var hasIOURing: Bool { !rings.isEmpty }
  /// The io_urings, by descriptor number.
  var rings: [String] = []
  /// Buffers that are registered with an io_uring, which pins them as long as they are.
  var fixedBuffers: [PageRange] = []

  /// Whether a scan while the process runs may miss a write.
  var needsStoppedScan: Bool { hasDirectIO || hasAIO || hasIOURing }

  /// What the user has to know of it.
  var warning: String {
    let found = [
      hasDirectIO ? "O_DIRECT descriptors" : nil, hasAIO ? "aio" : nil,
      hasIOURing ? "io_uring" : nil,
    ].compactMap { $0 }.joined(separator: ", ")
    var text =
      "the process uses \(found): its threads are stopped for the time of each scan (--scan)"
    if !fixedBuffers.isEmpty { text += "; registered buffers are stored whole in the freeze" }
    if hasAIO || hasIOURing {
      text += "; requests in flight during a scan can write unseen: --verify-final finds them"
    }
    return text
  }

  /// Looks at the descriptors and mappings of the process.
  static func signs(of process: borrowing TargetProcess, maps: [MapsEntry]) throws(KernelError)
    -> PinnedWriters
  {
    var signs = PinnedWriters()
    signs.hasAIO = maps.contains { $0.path.hasPrefix("/[aio]") }
    for name in try process.names(in: "fdinfo") {
      // Closed since it was listed: there is nothing to read.
      guard let text = fdinfo(name, of: process) else { continue }
      signs.add(fdinfo: text, of: name)
      if isRing(name, of: process), !signs.rings.contains(name) { signs.rings.append(name) }
    }
    signs.fixedBuffers.sort { $0.start < $1.start }
    return signs
  }

  /// The kernel says nothing of a ring that a thread is just using: how often to ask again, and how
  /// long to wait before (ns).
  private static let ringPatience = (times: 100, nanoseconds: UInt64(100_000))

  /// What `/proc` tells of a descriptor; nil if it is closed.
  private static func fdinfo(_ name: String, of process: borrowing TargetProcess) -> String? {
    var text: String?
    for _ in 0..<ringPatience.times {
      guard let bytes = try? process.read("fdinfo/\(name)") else { return nil }
      let found = String(decoding: bytes, as: UTF8.self)
      text = found
      if found.contains("SqMask:") { break }
      guard isRing(name, of: process) else { break }
      MonotonicClock.pause(nanoseconds: ringPatience.nanoseconds)
    }
    return text
  }

  private static func isRing(_ name: String, of process: borrowing TargetProcess) -> Bool {
    (try? process.link("fd/\(name)")) == "anon_inode:[io_uring]"
  }

  /// Looks again at the rings, while the process stands still: what was registered since is found.
  ///
  /// - Returns: requests that the kernel took and has not answered. An answer needs a thread of the
  ///   process, which may stand still: what is counted may be done. A ring of which the kernel says
  ///   nothing counts as one.
  mutating func lookAgain(at process: borrowing TargetProcess) -> UInt32 {
    var requests: UInt32 = 0
    for ring in rings {
      guard let text = Self.fdinfo(ring, of: process) else { continue }
      guard text.contains("SqMask:") else {
        requests &+= 1
        continue
      }
      var now = PinnedWriters()
      now.add(fdinfo: text, of: ring)
      for buffer in now.fixedBuffers where !fixedBuffers.contains(buffer) {
        fixedBuffers.append(buffer)
      }
      requests &+= Self.requestsInFlight(fdinfo: text)
    }
    fixedBuffers.sort { $0.start < $1.start }
    return requests
  }

  /// Takes in one `/proc/PID/fdinfo/N` (proc_pid_fdinfo(5); kernel: io_uring/fdinfo.c).
  mutating func add(fdinfo text: String, of descriptor: String) {
    let directFlag: UInt64 = 0o40000
    var isInBufferList = false
    for line in text.split(separator: "\n") {
      if isInBufferList, let range = Self.buffer(line) {
        fixedBuffers.append(range)
        continue
      }
      isInBufferList = false
      if line.hasPrefix("flags:") {
        let octal = line.dropFirst(6).drop { $0 == "\t" || $0 == " " }
        if (UInt64(octal, radix: 8) ?? 0) & directFlag != 0 { hasDirectIO = true }
      } else if line.hasPrefix("SqMask:") {
        rings.append(descriptor)
      } else if line.hasPrefix("UserBufs:") {
        isInBufferList = true
      }
    }
  }

  /// Requests that the kernel took from a ring and has not answered.
  static func requestsInFlight(fdinfo text: String) -> UInt32 {
    func number(_ name: String) -> UInt32? {
      guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix(name) }) else {
        return nil
      }
      return UInt32(line.dropFirst(name.count).drop { $0 == "\t" || $0 == " " })
    }
    guard let taken = number("SqHead:"), let answered = number("CqTail:") else { return 0 }
    // Both count modulo 2^32; a request may have many answers.
    let difference = taken &- answered
    return difference < 1 << 31 ? difference : 0
  }

  /// The pages that a line such as `    0: 0x7f0000001000/4096` touches.
  private static func buffer(_ line: Substring) -> PageRange? {
    let parts = line.split(separator: ":", maxSplits: 1)
    guard parts.count == 2 else { return nil }
    let numbers = parts[1].drop { $0 == " " || $0 == "\t" }.split(separator: "/")
    guard numbers.count == 2, numbers[0].hasPrefix("0x"),
      let start = UInt64(numbers[0].dropFirst(2), radix: 16), let count = UInt64(numbers[1]),
      count > 0, start <= UInt64.max - count - pageBytes
    else { return nil }
    let end = (start + count + pageBytes - 1) / pageBytes * pageBytes
    return PageRange(start: start / pageBytes * pageBytes, end: end)
  }
}
