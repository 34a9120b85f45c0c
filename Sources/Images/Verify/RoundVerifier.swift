internal import Kernel

/// Checks one round's directory by itself.
struct RoundVerifier {
  /// What the chain's other checks need to know of the round.
  struct Result {
    var round: ChainReport.Round
    var record: RoundRecord?
    var inventory: Inventory?
    var usesBlocks = false
    var hasMM = false
    /// Streams that take pages from the parent.
    var needingParent: Set<ImageStream> = []
  }

  /// Directory name of the round.
  let name: String
  /// Whether it is the newest: CRIU reads VMAs and inventory there only.
  let isTop: Bool
  /// Whether the round must have a record of ours, because others have.
  let needsRecord: Bool

  /// Checks the round in `directory`.
  func check(_ directory: borrowing Directory, log: inout FindingLog) throws(ImageError) -> Result {
    let path = directory.path
    let names = try onFile(path) { () throws(KernelError) in try directory.names() }
    let streams = names.compactMap { ImageStream(pagemapName: $0) }.sorted()
    var result = Result(round: ChainReport.Round(name: name))
    if streams.isEmpty {
      log.damage(ImageError(.missingFile, file: path, "there is no pagemap"))
    }
    result.record = readRecord(names, in: directory, log: &log)
    result.round.index = result.record?.index
    result.round.isFrozen = result.record.map { $0.kind == .frozen }
    result.inventory = readInventory(names, in: directory, log: &log)

    var found: [String: Digest128] = [:]
    var referenced: Set<String> = []
    for stream in streams {
      let checked = checkStream(stream, names, in: directory, &result, &log)
      guard let checked else { continue }
      referenced.insert(checked.pagesName)
      found[stream.pagemapName] = checked.pagemapDigest
      found[checked.pagesName] = checked.pagesDigest
      // One stream cannot overflow a count, but thousands of made-up ones could.
      result.round.pagesPresent &+= checked.pagesPresent
      result.round.pagesZero &+= checked.pagesZero
      result.round.pagesFromParent &+= checked.pagesFromParent
      result.round.payloadBytes &+= checked.payloadBytes
      result.usesBlocks = result.usesBlocks || checked.usesBlocks
      if checked.pagesFromParent > 0 { result.needingParent.insert(stream) }
    }
    if let record = result.record {
      result.round.hasDigests = true
      for member in record.members {
        let stream = ImageStream.process(pid: member.target.pid)
        if !streams.contains(stream) {
          log.damage(
            ImageError(
              .missingFile, file: directory.join(stream.pagemapName),
              "process \(member.target.pid) has no pagemap"))
        }
      }
      RecordComparison(record: record, directory: path).run(
        names: names, found: found, round: result.round, in: directory, log: &log)
    } else {
      noteUnreferenced(names, referenced, path, &log)
    }
    checkInventory(result, directory.join(ImageFormat.inventoryName), &log)
    return result
  }

  private func readRecord(
    _ names: [String], in directory: borrowing Directory, log: inout FindingLog
  ) -> RoundRecord? {
    let pids = names.compactMap { ImageFormat.recordPID($0) }
    guard let pid = pids.first else {
      let error = ImageError(
        .record, file: directory.path, "no memdump record: content digests not checked")
      if needsRecord { log.damage(error) } else { log.notice(error) }
      return nil
    }
    if pids.count > 1 {
      log.damage(
        ImageError(.superfluousFile, file: directory.path, "there is more than one memdump record"))
    }
    do throws(ImageError) {
      return try RoundRecordReader.read(pid: pid, in: directory)
    } catch {
      log.damage(error)
      return nil
    }
  }

  private func readInventory(
    _ names: [String], in directory: borrowing Directory, log: inout FindingLog
  ) -> Inventory? {
    if !names.contains(ImageFormat.inventoryName) {
      let error = ImageError(
        .missingFile, file: directory.join(ImageFormat.inventoryName), "there is no inventory")
      // CRIU restores chains whose older rounds have none.
      if isTop { log.damage(error) } else { log.notice(error) }
      return nil
    }
    do throws(ImageError) {
      return try Inventory.read(in: directory)
    } catch {
      log.damage(error)
      return nil
    }
  }

  private func checkStream(
    _ stream: ImageStream, _ names: [String], in directory: borrowing Directory,
    _ result: inout Result, _ log: inout FindingLog
  ) -> StreamVerifier.Result? {
    do throws(ImageError) {
      var areas: [MappedArea]?
      if case .process(let pid) = stream, names.contains(ImageFormat.mmName(pid: pid)) {
        result.hasMM = true
        let all = try MappedArea.readAll(pid: pid, in: directory)
        // Older rounds may hold pages that are gone since; CRIU ignores them.
        if isTop { areas = all }
      }
      var digests: DigestCursor?
      if let record = result.record, record.describes(stream) {
        digests = try DigestCursor(record, stream, in: directory)
      }
      return try StreamVerifier(
        stream, in: directory, digests: digests,
        digestPages: result.record?.compression.blockPages ?? PageCompression.plainPagesPerDigest,
        areas: areas, log: &log
      ).run(&log)
    } catch {
      log.damage(error)
      return nil
    }
  }

  private func noteUnreferenced(
    _ names: [String], _ referenced: Set<String>, _ path: String, _ log: inout FindingLog
  ) {
    for name in names where name.hasPrefix("pages-") && !referenced.contains(name) {
      log.notice(ImageError(.superfluousFile, file: path, "no pagemap refers to \(name)"))
    }
  }

  private func checkInventory(_ result: Result, _ path: String, _ log: inout FindingLog) {
    guard let inventory = result.inventory else { return }
    if !(1...3).contains(inventory.version) || inventory.compress > 1 {
      log.damage(
        ImageError(
          .inventory, file: path,
          "version \(inventory.version), compression \(inventory.compress) is not of CRIU 4.3"))
    } else if inventory.compress == 1 && inventory.version < ImageFormat.compressedVersion {
      log.damage(
        ImageError(
          .inventory, file: path, "CRIU refuses compression in version \(inventory.version)"))
    } else if result.usesBlocks && inventory.version < ImageFormat.compressedVersion {
      log.damage(
        ImageError(
          .inventory, file: path,
          "there are compressed pages, but the version is \(inventory.version)"))
    }
  }
}
