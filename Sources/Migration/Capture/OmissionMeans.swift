internal import Images
internal import Kernel

/// What each way to leave memory out needs.
extension MemoryOmission {
  /// Options for `criu dump`.
  var arguments: [String] {
    switch self {
    // The socket is standard input.
    case .lazy: ["--lazy-pages", "--ps-socket", "0"]
    case .softDirty: AssumedParent.arguments
    case .stream, .automatic: ["--stream"]
    }
  }

  /// Who takes the images of a CRIU that works in `place`; nil where it writes them there itself.
  func capture(in place: borrowing Directory) throws -> ImageCapture? {
    if self != .stream { return nil }
    return try ImageCapture(in: place)
  }

  /// The parent for a CRIU that works in `place`, if it is to have one.
  func parent(in place: borrowing Directory) throws(ImageError) -> AssumedParent? {
    if self != .softDirty { return nil }
    return try AssumedParent(in: place)
  }
}

extension AssumedParent {
  /// Has CRIU leave out the memory of processes that stand still, and that the rounds have: what counts
  /// as written from now on, CRIU has written.
  func claimMemory(of pids: [Int32]) throws {
    try claimPages(of: pids)
    for pid in pids {
      // One that has ended meanwhile has no memory.
      guard let process = try? TargetProcess(pid: pid) else { continue }
      try process.clearSoftDirty()
    }
  }
}
