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
    for stream in try streams(of: round) {
      if case .process(let pid) = stream {
        return try RoundRecordReader.read(pid: pid, in: open(round))
      }
    }
    throw ImageError(.missingFile, file: session.path, "round \(round) has no process's pagemap")
  }

  /// The streams of the newest round, sorted: all that a restore needs.
  package func topStreams() throws(ImageError) -> [ImageStream] {
    guard let top = rounds.first else { return [] }
    return try streams(of: top)
  }

  /// The address space that the newest round saw, with what its record says of each VMA.
  package func topAddressSpace(_ record: RoundRecord) throws(ImageError) -> AddressSpace {
    guard let top = rounds.first else { return AddressSpace() }
    return try AddressSpace.read(pid: record.pid, vmas: record.vmas, in: open(top))
  }
}
