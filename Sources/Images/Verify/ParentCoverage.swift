internal import Kernel

/// Checks that every page that a round takes from its parent is there: stored, or in turn taken
/// from its own parent.
///
/// Done for each round against its next older one, this covers the whole chain.
enum ParentCoverage {
  /// Checks `stream` of a round whose parent does not have it: a shared memory object that is new,
  /// or the oldest round.
  static func checkWithoutParent(
    _ stream: ImageStream, child: borrowing Directory, log: inout FindingLog
  ) throws(ImageError) {
    var children = try PagemapReader(stream.pagemapName, in: child)
    while try children.advance() {
      if children.entry.flags.contains(.parent) {
        report(children, children.entry.range.start, &log)
      }
    }
  }

  /// Compares the pagemaps of `stream` in two rounds.
  static func check(
    _ stream: ImageStream, child: borrowing Directory, parent: borrowing Directory,
    log: inout FindingLog
  ) throws(ImageError) {
    var children = try PagemapReader(stream.pagemapName, in: child)
    var parents = try PagemapReader(stream.pagemapName, in: parent)
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

  private static func report(
    _ pagemap: borrowing PagemapReader, _ address: UInt64, _ log: inout FindingLog
  ) {
    log.damage(
      ImageError(
        .parentPage, file: pagemap.path, byteOffset: pagemap.entry.recordOffset, address: address,
        "the page is said to be in the parent, and is not there"))
  }
}
