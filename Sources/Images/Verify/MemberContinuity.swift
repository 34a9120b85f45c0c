internal import Kernel

/// Checks that the processes of a round are those that the rounds before it and the session speak of.
///
/// A process id comes again for another process, or for another address space after an execve: pages
/// of one must never be taken for pages of the other.
enum MemberContinuity {
  /// Compares a round's processes with its parent's.
  static func check(
    _ result: RoundVerifier.Result, _ record: RoundRecord, parent: RoundRecord, path: String,
    _ log: inout FindingLog
  ) {
    for member in record.members {
      let pid = member.target.pid
      if member.since < record.index {
        let isThere = parent.members.contains {
          $0.target.isSameProcess(as: member.target) && $0.since == member.since && !$0.isGone
        }
        if !isThere {
          damage("process \(pid) is said to be in the parent, and is not there", path, &log)
        }
      } else if result.needingParent.contains(.process(pid: pid)) {
        damage("process \(pid) is new, but takes pages from the parent", path, &log)
      }
    }
  }

  /// Compares a round's processes with the session's. A session that never heard of the round, whose
  /// dumper died, says nothing of it.
  static func check(
    _ record: RoundRecord, _ session: SessionRecord, path: String, _ log: inout FindingLog
  ) {
    guard !session.members.isEmpty, record.index <= session.rounds.count else { return }
    let expected = session.members.filter {
      $0.firstRound <= record.index && record.index <= $0.lastRound
    }
    let isSame =
      expected.count == record.members.count
      && expected.allSatisfy { member in
        record.members.contains {
          $0.target.isSameProcess(as: member.target) && $0.since == member.firstRound
        }
      }
    if !isSame {
      log.damage(
        ImageError(
          .session, file: path,
          "round \(record.index) has other processes than the session committed"))
    }
  }

  private static func damage(_ message: String, _ path: String, _ log: inout FindingLog) {
    log.damage(ImageError(.parentRecord, file: path, message))
  }
}
