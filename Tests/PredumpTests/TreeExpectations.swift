import Images
import Kernel
import Testing

@testable import Predump

/// The images are sound, and hold what every process of the stopped tree holds, and no other.
@discardableResult func expectEqualTree(
  _ images: String, _ pid: Int32, sourceLocation: SourceLocation = #_sourceLocation
) throws -> MemoryComparison {
  let report = ChainVerifier.verify(images)
  #expect(report.verdict == .restorable, "\(report.findings)", sourceLocation: sourceLocation)
  let live = try LiveComparison.run(directory: images, pid: pid)
  #expect(live.isEqual, "\(live)", sourceLocation: sourceLocation)
  let alive = try ProcessTree.descendants(of: pid).filter { entry in
    (try? TargetProcess(pid: entry.pid).liveThread()) as Int32?? ?? nil != nil
  }
  #expect(live.processesCompared == UInt64(alive.count) + 1, sourceLocation: sourceLocation)
  return live
}
