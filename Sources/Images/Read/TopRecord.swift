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
    if let record = try RoundRecordReader.find(in: open(top)) { return record }
    throw ImageError(.missingFile, file: session.path, "round \(top) was not written by memdump")
  }

  /// The processes whose memory the newest round has.
  package func processes() throws(ImageError) -> [Int32] {
    guard let top = rounds.first else { return [] }
    return try streams(of: top).compactMap {
      if case .process(let pid) = $0 { pid } else { nil }
    }
  }
}
