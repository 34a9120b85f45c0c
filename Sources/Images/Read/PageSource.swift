internal import Kernel

/// One process's pages by address in any order, from whichever round has them: for whoever asks for
/// single pages of a restored process that runs already.
///
/// Memory: 40 bytes a run of pages with one owner, and the blocks that `BlockCache` keeps.
package struct PageSource: ~Copyable {
  private struct Run {
    var range: PageRange
    /// Which round, 0 the newest.
    var level: Int
    var place: PagemapReader.Place
  }

  private var image: ComposedImage
  private var runs: [Run]
  /// The place that each round's stream is at.
  private var current: [UInt64]

  /// Indexes the pages of process `pid` of the chain at `path`.
  package init(_ path: String, pid: Int32) throws {
    var image = try ComposedImage(ImageChain(path), stream: .process(pid: pid))
    var runs: [Run] = []
    try image.forEachPlace { (range, level, place) in
      runs.append(Run(range: range, level: level, place: place))
    }
    current = [UInt64](repeating: .max, count: image.depth)
    self.runs = runs
    self.image = image
  }

  /// Reads pages from `address` on into `buffer`, which is of whole pages, up to the first hole.
  ///
  /// - Returns: how many pages.
  package mutating func read(
    from address: UInt64, into buffer: UnsafeMutableRawBufferPointer
  ) throws(ImageError) -> Int {
    var index = firstRun(endingAfter: address)
    var next = address
    let end = address + UInt64(buffer.count)
    while next < end, index < runs.count, runs[index].range.start <= next {
      let run = runs[index]
      let stop = min(run.range.end, end)
      if current[run.level] != run.place.recordOffset {
        current[run.level] = .max
        try image.go(to: run.place, level: run.level)
        current[run.level] = run.place.recordOffset
      }
      let part = UnsafeMutableRawBufferPointer(
        rebasing: buffer[Int(next - address)..<Int(stop - address)])
      try image.read(next, level: run.level, into: part)
      next = stop
      index += 1
    }
    return Int((next - address) / pageBytes)
  }

  private func firstRun(endingAfter address: UInt64) -> Int {
    var (low, high) = (0, runs.count)
    while low < high {
      let middle = (low + high) / 2
      if runs[middle].range.end <= address { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
