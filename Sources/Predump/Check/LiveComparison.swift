package import Images
package import Kernel
internal import SystemPackage
internal import Tracee

/// Compares a chain with the process that it was taken from.
public enum LiveComparison {
  private static let freezeTimeoutNanoseconds: UInt64 = 5_000_000_000

  /// Freezes process `pid` for the time of the comparison, and compares every byte of its memory
  /// with what the chain in `directory` composes to. If its descendants were dumped with it, they are
  /// frozen and compared, too.
  ///
  /// - Throws: `PredumpError.images` if the chain cannot be read, `.unsuitableTarget` if the process
  ///   is not the one that was dumped, and what freezing throws.
  public static func run(directory: String, pid: Int32) throws(PredumpError) -> MemoryComparison {
    do {
      let chain = try ImageChain(directory)
      let record = try chain.topRecord()
      let process = try find(pid, dumpedAs: record.target)
      let frozen = try FrozenProcess(
        freezing: process, withDescendants: record.includesDescendants,
        timeoutNanoseconds: freezeTimeoutNanoseconds)
      let result = try compare(record, chain, with: frozen, pid: pid)
      _ = try frozen.thaw(leaving: .running)
      return result
    } catch { throw PredumpError(comparing: pid, error) }
  }

  private static func compare(
    _ record: RoundRecord, _ chain: borrowing ImageChain, with frozen: borrowing FrozenProcess,
    pid: Int32
  ) throws -> MemoryComparison {
    var result = MemoryComparison()
    var unmet = Dictionary(uniqueKeysWithValues: frozen.descendants.map { ($0.pid, $0) })
    // Every object once, through the first process that maps it.
    let objects = SharedObjects.list(members: record.members.map(\.vmas))
    for (index, member) in record.members.enumerated() {
      // The target may have been restored under another id.
      let memberPID = index == 0 ? pid : member.target.pid
      if index > 0, unmet.removeValue(forKey: memberPID)?.startTicks != member.target.startTicks {
        result.note(
          .process, at: 0, pages: 0,
          "process \(memberPID) (\(member.target.command)) is in the images alone")
        continue
      }
      var comparer = try MemoryComparer(
        TargetProcess(pid: memberPID), substitute: frozen.tracerReads(of: memberPID))
      try comparer.compareLayout(member.vmas.filter { $0.kind != .vsyscall }, without: nil)
      try comparer.comparePages(chain, pid: member.target.pid, vmas: member.vmas)
      for object in objects where object.member == index {
        try comparer.compareObject(chain, object, vmas: member.vmas)
      }
      result.merge(
        comparer.result,
        prefix: index == 0 ? "" : "process \(memberPID) (\(member.target.command)): ")
      result.processesCompared += 1
    }
    for left in unmet.values.sorted(by: { $0.pid < $1.pid }) {
      result.note(
        .process, at: 0, pages: 0, "process \(left.pid), child of \(left.parent), is in no image")
    }
    return result
  }

  /// The process `pid`, if it is still the one that was dumped.
  ///
  /// - Throws: `.targetGone`, or `.unsuitableTarget` if it is another one.
  package static func find(_ pid: Int32, dumpedAs target: TargetIdentity) throws(PredumpError)
    -> TargetProcess
  {
    let process: TargetProcess
    do throws(KernelError) { process = try TargetProcess(pid: pid) } catch {
      throw .targetGone(pid: pid, how: .neverFound)
    }
    let identity = try TargetView(process).identity
    if identity.startTicks != target.startTicks || identity.bootID != target.bootID {
      throw .unsuitableTarget(
        pid: pid,
        reason: "it is not the process that was dumped (\(target.command), "
          + "then pid \(target.pid)): that one has ended")
    }
    do throws(KernelError) { return try TargetProcess(pid: pid) } catch {
      throw .targetGone(pid: pid, how: .exited)
    }
  }
}

extension PredumpError {
  /// Sorts what a comparison with process `pid` may throw.
  init(comparing pid: Int32, _ error: any Error) {
    switch error {
    case let error as PredumpError: self = error
    case let error as ImageError: self = .images(error)
    case let error as TraceError: self = PredumpError(error)
    case ScanFailure<KernelError>.kernel(let error), ScanFailure<KernelError>.body(let error):
      self.init(comparing: pid, error)
    case let error as KernelError where error.errno == .noSuchProcess:
      self = .targetGone(pid: pid, how: .exited)
    case let error as KernelError: self = .kernel(error)
    default: self = .kernel(KernelError(call: "compare", subject: "\(error)", errno: .ioError))
    }
  }
}
