internal import Kernel

/// Compares a round's directory with what our record says was written there.
struct RecordComparison {
  let record: RoundRecord
  /// How people call the directory.
  let directory: String

  /// Compares names, lengths, digests and totals.
  ///
  /// - Parameter found: digests of files that were read to their ends already.
  func run(
    names: [String], found: [String: Digest128], round: ChainReport.Round,
    in directory: borrowing Directory, log: inout FindingLog
  ) {
    let present = Set(names)
    for file in record.files {
      guard present.contains(file.name) else {
        log.damage(
          ImageError(.missingFile, file: directory.join(file.name), "the file is missing"))
        continue
      }
      do throws(ImageError) {
        var digest = found[file.name]
        if digest == nil { digest = try Digest128(ofFile: file.name, in: directory) }
        if digest != file.digest {
          log.damage(
            ImageError(
              .digest, file: directory.join(file.name),
              "the file's bytes are not those that were written"))
        }
      } catch {
        log.damage(error)
      }
    }
    checkNames(names, in: directory, &log)
    checkTotals(round, &log)
  }

  private func checkNames(
    _ names: [String], in directory: borrowing Directory, _ log: inout FindingLog
  ) {
    var expected = Set(record.files.map(\.name))
    expected.insert(ImageFormat.recordName(pid: record.pid))
    if record.parentName != nil { expected.insert(ImageFormat.parentName) }
    for name in names where !expected.contains(name) {
      let error = ImageError(
        .superfluousFile, file: directory.join(name), "the file is not part of the round")
      // CRIU would look at these.
      let matters =
        name == ImageFormat.parentName
        || ["pagemap-", "pages-", "mm-", "memdump-"].contains { name.hasPrefix($0) }
      if matters { log.damage(error) } else { log.notice(error) }
    }
  }

  private func checkTotals(_ round: ChainReport.Round, _ log: inout FindingLog) {
    var counted = RoundTotals()
    counted.pagesStored = round.pagesPresent
    counted.pagesZero = round.pagesZero
    counted.pagesFromParent = round.pagesFromParent
    counted.payloadBytes = round.payloadBytes
    if counted != record.totals {
      log.damage(
        ImageError(
          .record, file: directory,
          "\(counted.pagesStored) pages, \(counted.pagesZero) zero, \(counted.pagesFromParent) of "
            + "the parent, \(counted.payloadBytes) bytes; the record says "
            + "\(record.totals.pagesStored), \(record.totals.pagesZero), "
            + "\(record.totals.pagesFromParent), \(record.totals.payloadBytes)"))
    }
  }
}
