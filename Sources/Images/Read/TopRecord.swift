internal import Kernel

extension ImageChain {
  /// What the newest round says of itself.
  ///
  /// - Throws: `.missingFile` if there is no round, or none that memdump wrote; what is wrong with
  ///   the record.
  package func topRecord() throws(ImageError) -> RoundRecord {
    guard let top = rounds.first else {
      throw ImageError(.missingFile, file: session.path, "there are no rounds")
    }
    return try record(of: top)
  }

  /// What a round of this chain says of itself.
  ///
  /// - Throws: `.missingFile` if memdump did not write it; what is wrong with the record.
  func record(of round: String) throws(ImageError) -> RoundRecord {
    if let record = try RoundRecordReader.find(in: open(round)) { return record }
    throw ImageError(
      .missingFile, file: session.path, "round \(round) was not written by memdump")
  }

  /// The streams of the newest round, sorted: all that a restore needs.
  package func topStreams() throws(ImageError) -> [ImageStream] {
    guard let top = rounds.first else { return [] }
    return try streams(of: top)
  }

  /// The processes of the newest round, with the address spaces that it saw.
  package func topMembers(_ record: RoundRecord) throws(ImageError) -> [RoundMember] {
    guard let top = rounds.first else { return [] }
    let directory = try open(top)
    var members: [RoundMember] = []
    for member in record.members {
      let space = try AddressSpace.read(
        pid: member.target.pid, vmas: member.vmas, in: directory)
      var described = RoundMember(
        target: member.target, parent: member.parent, since: member.since, addressSpace: space)
      described.isGone = member.isGone
      members.append(described)
    }
    return members
  }

  /// The processes whose memory the newest round has.
  package func processes() throws(ImageError) -> [Int32] {
    guard let top = rounds.first else { return [] }
    return try streams(of: top).compactMap {
      if case .process(let pid) = $0 { pid } else { nil }
    }
  }
}
