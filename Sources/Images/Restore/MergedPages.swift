package import Kernel

/// All pages of one process, from whichever round has them, plain and in one directory: for a CRIU
/// that cannot read compressed images, or for a machine that does not have the rounds.
package struct MergedPages: Sendable {
  private let path: String
  private let stream: ImageStream
  private let runs: [Run]

  private struct Run: Sendable {
    var range: PageRange
    /// Where its bytes go in the pages file.
    var offset: UInt64
  }

  private struct Part: Sendable {
    var range: PageRange
    var offset: UInt64
  }

  /// Writes `pagemap-PID.img` and `pages-ID.img` of process `pid` of the chain at `path`.
  ///
  /// - Parameters:
  ///   - pagesID: a number that no other pagemap of `directory` has.
  ///   - workers: threads that decode.
  /// - Returns: the pages written.
  package static func write(
    _ path: String, pid: Int32, pagesID: UInt32, in directory: borrowing Directory, workers: Int
  ) throws -> UInt64 {
    let stream = ImageStream.process(pid: pid)
    var runs: [Run] = []
    var end: UInt64 = 0
    var writer = try PagemapWriter(stream.pagemapName, in: directory, pagesID: pagesID)
    var image = try ComposedImage(ImageChain(path), stream: stream)
    try image.forEachOwner { (range, _, flags) throws in
      try writer.append(range, flags: flags.intersection([.present, .lazy]))
      if let last = runs.indices.last, runs[last].range.end == range.start {
        runs[last].range = PageRange(start: runs[last].range.start, end: range.end)
      } else {
        runs.append(Run(range: range, offset: end))
      }
      end += range.byteCount
    }
    try writer.finish()
    let name = ImageFormat.pagesName(pagesID)
    let file = SharedFile(
      File(
        try onFile(directory.join(name)) { () throws(KernelError) in
          try directory.createFile(name)
        }, path: directory.join(name)))
    let merged = MergedPages(path: path, stream: stream, runs: runs)
    try merged.copy(into: file, parts: merged.parts(workers, total: end))
    return end / pageBytes
  }

  /// Cuts the runs into about equal parts, one a worker.
  private func parts(_ count: Int, total: UInt64) -> [Part] {
    let share = max(total / UInt64(max(count, 1)) / pageBytes, 1) * pageBytes
    var parts: [Part] = []
    for run in runs {
      if let last = parts.indices.last, run.offset - parts[last].offset < share {
        parts[last].range = PageRange(start: parts[last].range.start, end: run.range.end)
      } else {
        parts.append(Part(range: run.range, offset: run.offset))
      }
      // A long run is cut inside.
      while let last = parts.indices.last {
        let before = parts[last].offset
        let cut = before + share
        guard cut >= run.offset, cut < run.offset + run.range.byteCount else { break }
        let address = run.range.start + (cut - run.offset)
        parts[last].range = PageRange(start: parts[last].range.start, end: address)
        if parts[last].range.isEmpty { parts.removeLast() }
        parts.append(Part(range: PageRange(start: address, end: run.range.end), offset: cut))
      }
    }
    return parts
  }

  private func copy(into file: SharedFile, parts: [Part]) throws {
    let failures = FailureBox()
    var threads: [ThreadBox] = []
    for part in parts {
      threads.append(
        ThreadBox(
          try OSThread(name: "memdump-merge") {
            do { try self.copy(part, into: file) } catch { failures.put(error) }
          }))
    }
    for thread in threads { thread.join() }
    if let failure = failures.take() { throw failure }
  }

  private func copy(_ part: Part, into file: SharedFile) throws {
    var image = try ComposedImage(ImageChain(path), stream: stream)
    var offset = part.offset
    try image.forEachRun(in: part.range) { (_, bytes) throws in
      try onFile(file.file.path) { () throws(KernelError) in
        try file.file.write(bytes, at: offset)
      }
      offset += UInt64(bytes.count)
    }
  }
}

/// A file that several threads write to, each at offsets of its own.
private final class SharedFile: Sendable {
  let file: File
  init(_ file: consuming File) { self.file = file }
}

/// A thread in an array.
private final class ThreadBox {
  private var thread: OSThread?
  init(_ thread: consuming OSThread) { self.thread = consume thread }
  func join() { thread.take()?.join() }
}

/// The first error of several threads.
private final class FailureBox: @unchecked Sendable {
  // Sendable: the queue locks; it is closed and emptied after all threads were joined.
  private let queue = BlockingQueue<any Error>()
  func put(_ error: any Error) { queue.put(error) }
  func take() -> (any Error)? {
    queue.close()
    return queue.take()
  }
}
