internal import CCRIUImages
internal import Kernel

/// Reads `memdump-PID.img`; see `Proto/memdump.proto`.
struct RoundRecordReader: ~Copyable {
  /// The most VMAs, and the most files, that are read. The kernel allows 65,530 VMAs unless told
  /// otherwise.
  private static let countLimit = 1 << 20

  /// What may come next.
  private enum Phase: Int, Comparable {
    case head, digests, vmas, files, seal, end
    static func < (left: Phase, right: Phase) -> Bool { left.rawValue < right.rawValue }
  }

  private var records: RecordReader
  private var phase = Phase.head
  private var vmaCount = 0
  private var pids: Set<Int32> = []
  private var result = RoundRecord()

  private init(_ records: consuming RecordReader) { self.records = records }

  /// Reads the record of the round in `directory`, and checks its seal first of all: what a sealed
  /// record says is what was written.
  static func read(pid: Int32, in directory: borrowing Directory) throws(ImageError) -> RoundRecord
  {
    let name = ImageFormat.recordName(pid: pid)
    let magics = [ImageFormat.common, ImageFormat.roundRecord]
    var reader = RoundRecordReader(
      try RecordReader.open(name, in: directory, magics: magics))
    while reader.phase != .end { try reader.step() }
    guard reader.result.pid == pid, reader.result.target.pid == pid else {
      throw reader.records.error(.record, "the record is of pid \(reader.result.pid)")
    }
    return reader.result
  }

  /// The record of the round in `directory`; nil if memdump did not write the round.
  static func find(in directory: borrowing Directory) throws(ImageError) -> RoundRecord? {
    let names = try onFile(directory.path) { () throws(KernelError) in try directory.names() }
    guard let pid = names.compactMap({ ImageFormat.recordPID($0) }).first else { return nil }
    return try read(pid: pid, in: directory)
  }

  private mutating func step() throws(ImageError) {
    guard try records.advance() else {
      throw records.error(.truncated, "the record has no seal")
    }
    let message = try records.message(Memdump__Record.self).pointee
    if let head = message.head {
      try enter(.head, from: .head, then: .digests)
      try read(head.pointee)
    } else if let digests = message.block_digests {
      try enter(.digests, from: .digests, then: .digests)
      let stream = ImageStream(digests.pointee, head: result.pid)
      if result.digestOffsets[stream] == nil {
        result.digestOffsets[stream] = records.recordOffset
      }
    } else if let round = message.round {
      try enter(.digests, from: .digests, then: .vmas)
      try read(round.pointee)
    } else if let member = message.member {
      try enter(.vmas, from: .vmas, then: .vmas)
      try read(member.pointee)
    } else if let vma = message.vma {
      try enter(.vmas, from: .vmas, then: .vmas)
      try read(vma.pointee)
    } else if let file = message.file {
      try enter(.vmas, from: .files, then: .files)
      try read(file.pointee)
    } else if let summary = message.summary {
      try enter(.vmas, from: .files, then: .seal)
      try read(summary.pointee)
    } else if let seal = message.seal {
      try enter(.seal, from: .seal, then: .end)
      try records.check(seal)
      result.fileDigest = records.digestBeforeRecord
    } else {
      throw records.error(.record, "a record of no known kind")
    }
  }

  private mutating func enter(_ first: Phase, from last: Phase, then next: Phase)
    throws(ImageError)
  {
    guard phase >= first && phase <= last else {
      throw records.error(.record, "the record's parts are out of order")
    }
    phase = next
  }

  private mutating func read(_ head: Memdump__Head) throws(ImageError) {
    guard head.format == ImageFormat.recordVersion else {
      throw records.error(.value, "record format \(head.format) is not known")
    }
    guard PageCompression.pagesPerBlockLimits.contains(Int(head.pages_per_block)),
      head.compression <= 1,
      head.compression == 1 || head.pages_per_block == PageCompression.plainPagesPerDigest
    else {
      throw records.error(.value, "the compression is not one that exists")
    }
    result.pid = head.pid
    if head.compression == 1 {
      result.compression = .lz4(
        pagesPerBlock: Int(head.pages_per_block), acceleration: Int(head.acceleration))
    }
    if let parent = head.parent { result.parentName = String(cString: parent) }
    if let digest = head.parent_record { result.parentRecord = Digest128(digest.pointee) }
    guard (result.parentName == nil) == (result.parentRecord == nil) else {
      throw records.error(.value, "the parent has a name or a digest, but not both")
    }
  }

  private mutating func read(_ round: Memdump__Round) throws(ImageError) {
    guard let kind = RoundKind(rawValue: round.kind) else {
      throw records.error(.value, "round kind \(round.kind) is not known")
    }
    result.index = Int(round.index)
    result.kind = kind
    let since = round.has_target_since != 0 ? round.target_since : 1
    guard since > 0, since <= round.index else {
      throw records.error(.value, "round \(round.index) has a target since round \(since)")
    }
    result.members = [
      RoundRecord.Member(
        target: TargetIdentity(round.target.pointee), parent: 0, since: Int(since), isGone: false)
    ]
    pids = [round.target.pointee.pid]
    result.includesDescendants = round.has_descendants != 0 && round.descendants != 0
    result.uptimeMicroseconds = round.uptime_us
    result.startedAt = round.started_at
    result.statistics.freezingMicroseconds = round.freezing_us
    result.statistics.frozenMicroseconds = round.frozen_us
    result.statistics.scanMicroseconds = round.scan_us
    result.statistics.copyMicroseconds = round.copy_us
    result.statistics.wallMicroseconds = round.wall_us
    result.statistics.pagesScanned = round.pages_scanned
  }

  private mutating func read(_ member: Memdump__Member) throws(ImageError) {
    guard result.members.count < Self.countLimit else {
      throw records.error(.limit, "more than \(Self.countLimit) processes")
    }
    let target = TargetIdentity(member.target.pointee)
    guard result.includesDescendants, target.pid > 0, member.since > 0,
      member.since <= result.index, pids.insert(target.pid).inserted
    else { throw records.error(.value, "process \(target.pid) cannot be a member of the round") }
    result.members.append(
      RoundRecord.Member(
        target: target, parent: member.parent, since: Int(member.since),
        isGone: member.has_gone != 0 && member.gone != 0))
  }

  private mutating func read(_ vma: Memdump__Vma) throws(ImageError) {
    guard vmaCount < Self.countLimit else {
      throw records.error(.limit, "more than \(Self.countLimit) VMAs")
    }
    guard let kind = VMAKind(rawValue: vma.kind),
      let treatment = VMATreatment(rawValue: vma.treatment)
    else {
      throw records.error(.value, address: vma.start, "a VMA of no known kind or treatment")
    }
    guard vma.start % pageBytes == 0, vma.end % pageBytes == 0, vma.start <= vma.end else {
      throw records.error(.alignment, address: vma.start, "a VMA that is not in whole pages")
    }
    var record = VMARecord(
      range: PageRange(start: vma.start, end: vma.end), fileOffset: vma.file_offset,
      protection: vma.protection, mapFlags: vma.map_flags, status: vma.status,
      adviceBits: vma.advice, sharedObjectID: vma.shared_object, kind: kind, treatment: treatment,
      path: String(
        decoding: UnsafeBufferPointer(start: vma.path.data, count: vma.path.len), as: UTF8.self))
    record.pagesStored = vma.pages_stored
    record.pagesFromParent = vma.pages_from_parent
    result.members[result.members.count - 1].vmas.append(record)
    vmaCount += 1
  }

  private mutating func read(_ file: Memdump__File) throws(ImageError) {
    guard result.files.count < Self.countLimit else {
      throw records.error(.limit, "more than \(Self.countLimit) files")
    }
    result.files.append(
      FileDigest(
        name: String(cString: file.name), byteCount: file.bytes,
        digest: Digest128(file.digest.pointee)))
  }

  private mutating func read(_ summary: Memdump__Summary) throws(ImageError) {
    result.totals.pagesStored = summary.pages_stored
    result.totals.pagesZero = summary.pages_zero
    result.totals.pagesFromParent = summary.pages_from_parent
    result.totals.payloadBytes = summary.payload_bytes
    guard summary.vma_count == UInt64(vmaCount),
      summary.file_count == UInt64(result.files.count)
    else {
      throw records.error(.record, "VMAs or files are missing from the record")
    }
  }
}

extension ImageStream {
  /// The stream that digests belong to, in the record of process `head`.
  init(_ digests: Memdump__BlockDigests, head: Int32) {
    if digests.shared_object != 0 {
      self = .sharedObject(id: digests.shared_object)
    } else {
      self = .process(pid: digests.has_pid != 0 ? digests.pid : head)
    }
  }
}
