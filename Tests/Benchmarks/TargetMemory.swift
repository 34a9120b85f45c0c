internal import Kernel

/// The private anonymous memory of a live process.
struct TargetMemory {
  let pid: Int32
  /// The VMAs.
  let areas: [PageRange]

  init(pid: Int32) throws(KernelError) {
    self.pid = pid
    let entries = try TargetProcess(pid: pid).maps()
    areas =
      entries
      .filter { entry in
        let isNamedByKernel = entry.path.hasPrefix("[") && !entry.path.hasPrefix("[anon")
        return !entry.isShared && entry.inode == 0
          && (!isNamedByKernel || entry.path == "[heap]" || entry.path == "[stack]")
      }
      .map(\.range)
  }

  /// Opens `/proc/PID/name`.
  func open(_ name: String) throws(KernelError) -> File { try TargetProcess(pid: pid).open(name) }

  /// What is populated, cut into pieces of `pageLimit` pages at most.
  func pieces(pageLimit: UInt64) throws(KernelError) -> [PageRange] {
    let scanner = PagemapScanner(pagemap: try open("pagemap"))
    var runs: [PageRange] = []
    for area in areas {
      do throws(ScanFailure<Never>) {
        try scanner.scan(area, filter: .populated, protect: false) { region in
          // Regions differ in category too: neighbours are one run.
          if let last = runs.last, last.end == region.range.start {
            runs[runs.count - 1].end = region.range.end
          } else {
            runs.append(region.range)
          }
        }
      } catch {
        if case .kernel(let cause) = error { throw cause }
      }
    }
    return runs.flatMap { run in
      stride(from: run.start, to: run.end, by: Int(pageLimit * pageBytes)).map { start in
        PageRange(start: start, end: min(run.end, start + pageLimit * pageBytes))
      }
    }
  }
}

/// What is wrong with a measurement, rather than with the kernel.
struct BenchmarkFailure: Error, CustomStringConvertible {
  let description: String
}
