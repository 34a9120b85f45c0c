internal import Kernel

/// Whether parts of the target's memory belong to another userfaultfd: they cannot be tracked.
enum TargetUserfaults {
  private static let id = "target.userfaultfd"
  private static let title = "no other userfaultfd on its memory"

  /// Looks at the flags of its VMAs, and reads the names of its descriptors.
  static func check(_ process: borrowing TargetProcess, _ flags: [PageRange: VMAFlags])
    throws(KernelError) -> GroundFinding
  {
    var taken: [PageRange] = []
    var areProtected = false
    for (range, flags) in flags
    where !flags.isDisjoint(with: [.userfaultMissing, .userfaultProtect, .userfaultMinor]) {
      taken.append(range)
      if flags.contains(.userfaultProtect) { areProtected = true }
    }
    let descriptors = try userfaultfds(of: process)
    guard let first = taken.min(by: { $0.start < $1.start }) else {
      let detail = descriptors.isEmpty ? "it has none" : "it has one that holds no memory"
      return .ok(id, title, detail)
    }
    let bytes = taken.reduce(0) { $0 + $1.byteCount }
    let held =
      "\(taken.count) VMAs (\(byteText(bytes)), the first at \(hexAddress(first.start)))"
    if descriptors.isEmpty, areProtected {
      // Two trackers of one page would each reset what the other has to see.
      return .unsuitable(
        id, title, "\(held) are tracked by another program, perhaps another memdump",
        remedy: "let that program end first", pid: process.pid)
    }
    return .warning(
      id, title,
      "\(held) belong to a userfaultfd of the process's own; "
        + "they are taken whole in the freeze",
      remedy: "expect a longer freeze")
  }

  private static func userfaultfds(of process: borrowing TargetProcess) throws(KernelError)
    -> [String]
  {
    var found: [String] = []
    for name in try process.names(in: "fd") {
      // A descriptor may be closed between the listing and the look at it.
      let link = try? process.link("fd/\(name)")
      if link == "anon_inode:[userfaultfd]" { found.append(name) }
    }
    return found
  }
}
