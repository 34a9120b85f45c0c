internal import CCRIUImages
internal import Kernel

/// Writes `memdump-PID.img`, our own record of a round; see `Proto/memdump.proto`.
struct RoundRecordWriter: ~Copyable {
  private static let batchLength = 4096

  private var records: RecordWriter
  private var digests: [UInt64] = []
  private let pid: Int32
  private var stream: ImageStream
  private var vmaCount: UInt64 = 0
  private var fileCount: UInt64 = 0

  /// Creates the file and says what is known before the first page. `parent` is the parent round's
  /// name and the digest of its record.
  init(
    in directory: borrowing some ImageFolder & ~Copyable, pid: Int32, compression: PageCompression,
    parent: (name: String, record: Digest128)?
  ) throws(ImageError) {
    var records = try RecordWriter(
      ImageFormat.recordName(pid: pid), in: directory,
      magics: [ImageFormat.common, ImageFormat.roundRecord])
    let scope = PackScope()
    var head = Memdump__Head()
    memdump__head__init(&head)
    head.format = ImageFormat.recordVersion
    head.pid = pid
    head.compression = compression.isCompressed ? 1 : 0
    head.pages_per_block = UInt32(compression.blockPages)
    if compression.isCompressed {
      head.has_acceleration = 1
      head.acceleration = UInt32(compression.acceleration)
    }
    if let parent {
      head.parent = scope.string(parent.name)
      head.parent_record = scope.place(parent.record.message)
    }
    var record = Self.record()
    record.head = scope.place(head)
    try withExtendedLifetime(scope) { () throws(ImageError) in try records.append(record) }
    self.records = records
    self.pid = pid
    stream = .process(pid: pid)
    digests.reserveCapacity(Self.batchLength)
  }

  /// Adds the digests of a chunk's blocks.
  mutating func append(_ blocks: UnsafeBufferPointer<Chunk.Block>, of stream: ImageStream)
    throws(ImageError)
  {
    if stream != self.stream {
      try flushDigests()
      self.stream = stream
    }
    for block in blocks {
      digests.append(block.digest)
      if digests.count == Self.batchLength { try flushDigests() }
    }
  }

  /// Adds what the engine says of the round, VMAs included.
  mutating func append(_ description: RoundDescription) throws(ImageError) {
    try flushDigests()
    let scope = PackScope()
    let statistics = description.statistics
    var round = Memdump__Round()
    memdump__round__init(&round)
    round.index = UInt32(clamping: description.index)
    round.kind = description.kind.rawValue
    guard let target = description.members.first else {
      throw ImageError(.misuse, file: records.path, "a round without a process")
    }
    round.target = scope.place(target.target.message(scope))
    if description.includesDescendants {
      round.has_descendants = 1
      round.descendants = 1
    }
    if target.since > 1 {
      round.has_target_since = 1
      round.target_since = UInt32(clamping: target.since)
    }
    round.uptime_us = description.uptimeMicroseconds
    round.started_at = description.startedAt
    round.freezing_us = statistics.freezingMicroseconds
    round.frozen_us = statistics.frozenMicroseconds
    round.scan_us = statistics.scanMicroseconds
    round.copy_us = statistics.copyMicroseconds
    round.wall_us = statistics.wallMicroseconds
    round.pages_scanned = statistics.pagesScanned
    var record = Self.record()
    record.round = scope.place(round)
    try withExtendedLifetime(scope) { () throws(ImageError) in try records.append(record) }
    for vma in target.addressSpace.vmas { try append(vma) }
    for member in description.members.dropFirst() { try append(member) }
  }

  private mutating func append(_ member: RoundMember) throws(ImageError) {
    let scope = PackScope()
    var message = Memdump__Member()
    memdump__member__init(&message)
    message.target = scope.place(member.target.message(scope))
    message.parent = member.parent
    message.since = UInt32(clamping: member.since)
    if member.isGone {
      message.has_gone = 1
      message.gone = 1
    }
    var record = Self.record()
    record.member = scope.place(message)
    try withExtendedLifetime(scope) { () throws(ImageError) in try records.append(record) }
    for vma in member.addressSpace.vmas { try append(vma) }
  }

  /// Adds the length and digest of a finished file.
  mutating func append(_ file: FileDigest) throws(ImageError) {
    let scope = PackScope()
    var message = Memdump__File()
    memdump__file__init(&message)
    message.name = scope.string(file.name)
    message.bytes = file.byteCount
    message.digest = scope.place(file.digest.message)
    var record = Self.record()
    record.file = scope.place(message)
    try withExtendedLifetime(scope) { () throws(ImageError) in try records.append(record) }
    fileCount += 1
  }

  /// Adds the totals and the seal, and ends the file, whose digest the round's children note.
  @discardableResult
  mutating func finish(_ totals: RoundTotals, sync: Bool) throws(ImageError) -> FileDigest {
    var summary = Memdump__Summary()
    memdump__summary__init(&summary)
    summary.pages_stored = totals.pagesStored
    summary.pages_zero = totals.pagesZero
    summary.pages_from_parent = totals.pagesFromParent
    summary.payload_bytes = totals.payloadBytes
    summary.vma_count = vmaCount
    summary.file_count = fileCount
    let scope = PackScope()
    var record = Self.record()
    record.summary = scope.place(summary)
    try withExtendedLifetime(scope) { () throws(ImageError) in try records.append(record) }
    try records.appendSeal()
    return try records.finish(sync: sync)
  }

  private mutating func append(_ vma: VMARecord) throws(ImageError) {
    let scope = PackScope()
    var message = Memdump__Vma()
    memdump__vma__init(&message)
    message.start = vma.range.start
    message.end = vma.range.end
    message.file_offset = vma.fileOffset
    message.protection = vma.protection
    message.map_flags = vma.mapFlags
    message.status = vma.status
    message.advice = vma.adviceBits
    message.shared_object = vma.sharedObjectID
    message.kind = vma.kind.rawValue
    message.treatment = vma.treatment.rawValue
    message.path = scope.bytes(vma.path)
    message.pages_stored = vma.pagesStored
    message.pages_from_parent = vma.pagesFromParent
    var record = Self.record()
    record.vma = scope.place(message)
    try withExtendedLifetime(scope) { () throws(ImageError) in try records.append(record) }
    vmaCount += 1
  }

  private mutating func flushDigests() throws(ImageError) {
    if digests.isEmpty { return }
    let scope = PackScope()
    var message = Memdump__BlockDigests()
    memdump__block_digests__init(&message)
    switch stream {
    case .sharedObject(let id): message.shared_object = id
    case .process(let member):
      message.shared_object = 0
      if member != pid {
        message.has_pid = 1
        message.pid = member
      }
    }
    message.n_xxh3 = digests.count
    message.xxh3 = scope.place(digests)
    var record = Self.record()
    record.block_digests = scope.place(message)
    try withExtendedLifetime(scope) { () throws(ImageError) in try records.append(record) }
    digests.removeAll(keepingCapacity: true)
  }

  private static func record() -> Memdump__Record {
    var record = Memdump__Record()
    memdump__record__init(&record)
    return record
  }
}

extension RecordWriter {
  /// Appends the digest of everything before it.
  mutating func appendSeal() throws(ImageError) {
    let scope = PackScope()
    var seal = Memdump__Seal()
    memdump__seal__init(&seal)
    seal.preceding = scope.place(try digestSoFar().message)
    var record = Memdump__Record()
    memdump__record__init(&record)
    record.seal = scope.place(seal)
    try withExtendedLifetime(scope) { () throws(ImageError) in try append(record) }
  }
}

extension Digest128 {
  /// The digest as our records have it.
  var message: Memdump__Digest128 {
    var message = Memdump__Digest128()
    memdump__digest128__init(&message)
    message.high = high
    message.low = low
    return message
  }
}

extension TargetIdentity {
  /// The identity as our records have it; its strings are good as long as `scope`.
  func message(_ scope: PackScope) -> Memdump__Target {
    var message = Memdump__Target()
    memdump__target__init(&message)
    message.pid = pid
    message.start_ticks = startTicks
    message.boot_id = scope.string(bootID)
    message.command = scope.string(command)
    return message
  }
}
