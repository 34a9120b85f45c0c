internal import CCRIUImages
internal import Kernel

/// Hands out the block digests of one stream, in the pagemap's order.
///
/// The record must have been read, and its seal found good, before.
struct DigestCursor: ~Copyable {
  private var records: RecordReader
  private let stream: ImageStream
  private let recordPID: Int32
  private var batch: [UInt64] = []
  private var next = 0
  private var isAtEnd = false

  /// Opens the digests of a stream; `record` is what `RoundRecordReader` made of the same file.
  init(_ record: RoundRecord, _ stream: ImageStream, in directory: borrowing Directory)
    throws(ImageError)
  {
    var records = try RecordReader.open(
      ImageFormat.recordName(pid: record.pid), in: directory,
      magics: [ImageFormat.common, ImageFormat.roundRecord])
    if let offset = record.digestOffsets[stream] {
      records.seek(to: offset)
    } else {
      isAtEnd = true
    }
    self.records = records
    self.stream = stream
    recordPID = record.pid
  }

  /// The next digest; nil after the last one.
  mutating func advance() throws(ImageError) -> UInt64? {
    if next == batch.count { try loadBatch() }
    if next == batch.count { return nil }
    next += 1
    return batch[next - 1]
  }

  private mutating func loadBatch() throws(ImageError) {
    next = 0
    batch.removeAll(keepingCapacity: true)
    while batch.isEmpty && !isAtEnd {
      guard try records.advance(),
        let message = try records.message(Memdump__Record.self).pointee.block_digests,
        ImageStream(message.pointee, head: recordPID) == stream
      else {
        isAtEnd = true
        return
      }
      batch.append(
        contentsOf: UnsafeBufferPointer(start: message.pointee.xxh3, count: message.pointee.n_xxh3))
    }
  }
}
