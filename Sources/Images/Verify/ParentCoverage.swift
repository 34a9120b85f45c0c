internal import Kernel

/// Checks that every page that a round takes from its parent is there: stored, or in turn taken
/// from its own parent.
///
/// Done for each round against its next older one, this covers the whole chain.
enum ParentCoverage {
  /// Compares the pagemaps of `stream` in two rounds; without `parent`, nothing is covered.
  static func check(
    _ stream: ImageStream, child: borrowing Directory, parent: borrowing Directory?,
    log: inout FindingLog
  ) throws(ImageError) {
    var children = try PagemapReader(stream.pagemapName, in: child)
    guard var parents = try open(stream, in: parent) else {
      while try children.advance() {
        if children.entry.flags.contains(.parent) {
          report(children, children.entry.range.start, &log)
        }
      }
      return
    }
    var hasParent = try parents.advance()
    while try children.advance() {
      guard children.entry.flags.contains(.parent) else { continue }
      var address = children.entry.range.start
      while address < children.entry.range.end {
        while hasParent && parents.entry.range.end <= address { hasParent = try parents.advance() }
        // A lazy entry without payload has nothing to give.
        guard hasParent, parents.entry.range.start <= address,
          !parents.entry.flags.isDisjoint(with: [.present, .parent])
        else {
          report(children, address, &log)
          break
        }
        address = parents.entry.range.end
      }
    }
  }

  private static func open(_ stream: ImageStream, in directory: borrowing Directory?)
    throws(ImageError) -> PagemapReader?
  {
    switch directory {
    case .some(let directory): return try openIfThere(stream.pagemapName, in: directory)
    case .none: return nil
    }
  }

  /// An object that is new in a round has no pagemap in its parent.
  private static func openIfThere(_ name: String, in directory: borrowing Directory)
    throws(ImageError) -> PagemapReader?
  {
    let names = try onFile(directory.path) { () throws(KernelError) in try directory.names() }
    return names.contains(name) ? try PagemapReader(name, in: directory) : nil
  }

  private static func report(
    _ pagemap: borrowing PagemapReader, _ address: UInt64, _ log: inout FindingLog
  ) {
    log.damage(
      ImageError(
        .parentPage, file: pagemap.path, byteOffset: pagemap.entry.recordOffset, address: address,
        "the page is said to be in the parent, and is not there"))
  }
}
