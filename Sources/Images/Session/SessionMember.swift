internal import CCRIUImages

/// A process that a session dumped, from which round to which.
///
/// It stands for one address space: a process that called execve in between is there twice.
public struct SessionMember: Sendable, Equatable {
  /// Who it is.
  public var target: TargetIdentity
  /// Process id of its parent; 0 if that was not asked for.
  public var parent: Int32
  /// Index of the first round that has it.
  public var firstRound: Int
  /// Index of the last round that has it.
  public var lastRound: Int

  init(_ member: RoundMember, round: Int) {
    target = member.target
    parent = member.parent
    firstRound = member.since
    lastRound = round
  }

  init(_ message: Memdump__SessionMember) {
    target = TargetIdentity(message.target.pointee)
    parent = message.parent
    firstRound = Int(message.first_round)
    lastRound = Int(message.last_round)
  }

  /// The member as our record has it; its strings are good as long as `scope`.
  func message(_ scope: PackScope) -> Memdump__SessionMember {
    var message = Memdump__SessionMember()
    memdump__session_member__init(&message)
    message.target = scope.place(target.message(scope))
    message.parent = parent
    message.first_round = UInt32(clamping: firstRound)
    message.last_round = UInt32(clamping: lastRound)
    return message
  }
}

extension SessionRecord {
  /// Forgets every round after `round`.
  package mutating func rollBack(to round: Int) {
    rounds.removeSubrange(min(round, rounds.count)...)
    members.removeAll { $0.firstRound > round }
    for index in members.indices {
      members[index].lastRound = min(members[index].lastRound, round)
    }
  }

  /// Takes in the members of a round that was committed.
  package mutating func add(_ members: [RoundMember], of round: Int) {
    for member in members {
      let known = self.members.firstIndex {
        $0.target.isSameProcess(as: member.target) && $0.firstRound == member.since
      }
      if let known {
        self.members[known].lastRound = round
      } else {
        self.members.append(SessionMember(member, round: round))
      }
    }
  }
}
