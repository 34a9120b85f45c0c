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
}
