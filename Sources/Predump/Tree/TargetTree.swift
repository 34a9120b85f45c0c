internal import Images
internal import Kernel

/// The processes of a dump: the target alone, which is the common case, or with its descendants.
struct TargetTree {
  /// The target comes first.
  private(set) var members: [TreeMember]
  private let numbers: SharedObjectNumbers
  private let options: PredumpOptions

  /// What attaching found and cost, in sums over all members.
  struct Attachment {
    var stoppedNanoseconds: UInt64 = 0
    var residentBytes: UInt64 = 0
    var vmaCount = 0
  }

  /// Takes hold of the target, without touching it.
  init(_ options: PredumpOptions) throws(PredumpError) {
    let process: TargetProcess
    do throws(KernelError) { process = try TargetProcess(pid: options.pid) } catch {
      throw .targetGone(pid: options.pid, how: .neverFound)
    }
    let numbers = SharedObjectNumbers()
    let target = try TreeMember(
      process, parent: 0, since: 1, numbers: numbers, tuning: options.tuning)
    self.options = options
    self.numbers = numbers
    members = [target]
  }

  /// The process that the dump is of.
  var target: TreeMember { members[0] }

  /// Starts tracking.
  func attach() throws(PredumpError) -> Attachment {
    var attachment = Attachment()
    for member in members {
      do throws(KernelError) {
        attachment.residentBytes += try member.view.process.status().residentBytes
        attachment.vmaCount += try member.view.process.maps().count
      } catch { throw member.view.explain(error) }
      attachment.stoppedNanoseconds += try member.attach(options.faults)
    }
    return attachment
  }

  /// What a freeze would find, and how many threads it would stop.
  ///
  /// - Parameter described: what the last round says of the members.
  func pending(_ described: [RoundMember]) throws(PredumpError)
    -> (pages: PendingPages, threads: Int)
  {
    var sum = PendingPages()
    var threads = 0
    for member in members {
      let last = described.first { $0.target.pid == member.pid && $0.since == member.since }
      guard let last, !last.isGone else { continue }
      let pending = try member.pending(last.addressSpace.vmas)
      sum.pageCount += pending.pageCount
      sum.runCount += pending.runCount
      threads += try member.threadCount()
    }
    return (sum, threads)
  }
}
