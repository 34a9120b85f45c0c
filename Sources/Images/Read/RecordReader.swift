internal import Kernel

/// Reads one image: magic numbers, then framed messages, one at a time.
///
/// Takes memory for the longest record and for what is made of it: at most 17 times its length
/// (`UnpackArena`), however large the file is and whatever it says.
struct RecordReader: ~Copyable {
  /// The longest record that is read (bytes): an `mm_entry` with 200,000 VMAs, or the block sizes
  /// of 16 GiB in single pages.
  static let recordLimit = 16 << 20
  private static let standardCapacity = 16 * 1024

  private let file: File
  /// Length of the file when it was opened (bytes).
  let byteCount: UInt64
  /// Where the current record's length field is.
  private(set) var recordOffset: UInt64 = 0
  private var digest: RunningDigest
  private let arena = UnpackArena()
  // Allocated and freed here only. [consumed, filled) has been read from the file and waits;
  // the current record is [consumed, consumed + recordLength), length field included.
  private var buffer: UnsafeMutableRawBufferPointer
  private var consumed = 0
  private var filled = 0
  private var recordLength = 0
  /// File offset of `buffer[filled]`.
  private var fileOffset: UInt64 = 0

  /// Opens the file `name` and checks its magic numbers.
  static func open(_ name: String, in directory: borrowing Directory, magics: [UInt32])
    throws(ImageError) -> RecordReader
  {
    let path = directory.join(name)
    let opened = try onFile(path) { () throws(KernelError) in try directory.openFile(name) }
    let file = File(opened, path: path)
    let byteCount = try onFile(path) { () throws(KernelError) in try file.byteCount() }
    let digest = try onFile(path) { () throws(KernelError) in try RunningDigest() }
    var reader = RecordReader(file, byteCount: byteCount, digest: digest)
    try reader.skipMagics(magics)
    return reader
  }

  private init(_ file: consuming File, byteCount: UInt64, digest: consuming RunningDigest) {
    self.file = file
    self.digest = digest
    self.byteCount = byteCount
    buffer = .allocate(byteCount: Self.standardCapacity, alignment: 16)
  }

  deinit { buffer.deallocate() }

  /// How people call the file.
  var path: String { file.path }

  /// The bytes of the current record, without its length; good until the next `advance`.
  var record: UnsafeRawBufferPointer {
    recordLength < 4
      ? UnsafeRawBufferPointer(rebasing: buffer[consumed..<consumed])
      : UnsafeRawBufferPointer(rebasing: buffer[(consumed + 4)..<(consumed + recordLength)])
  }

  /// Digest of all bytes before the current record; of the whole file after the last one.
  var digestBeforeRecord: Digest128 { digest.value }

  /// Goes to the next record. False at the end of the file.
  mutating func advance() throws(ImageError) -> Bool {
    drop(recordLength)
    recordLength = 0
    recordOffset = fileOffset - UInt64(filled - consumed)
    let left = byteCount - min(recordOffset, byteCount)
    if left == 0 { return false }
    guard left >= 4 else { throw truncated(left, of: 4) }
    try fill(4)
    let length = buffer.loadUnaligned(fromByteOffset: consumed, as: UInt32.self).littleEndian
    guard length <= Self.recordLimit else {
      throw error(.limit, "a record of \(length) bytes is longer than any that makes sense")
    }
    guard UInt64(length) <= left - 4 else { throw truncated(left - 4, of: UInt64(length)) }
    try fill(4 + Int(length))
    recordLength = 4 + Int(length)
    return true
  }

  /// Goes on with the record whose length field is at `offset`. Digests mean nothing after it.
  mutating func seek(to offset: UInt64) {
    consumed = 0
    filled = 0
    recordLength = 0
    fileOffset = offset
  }

  /// The current record as a message, which is good until the next call.
  func message<Message: UnpackableMessage>(_ type: Message.Type) throws(ImageError)
    -> UnsafeMutablePointer<Message>
  {
    guard let message = arena.unpack(type, record) else {
      throw error(.message, "a record of \(record.count) bytes is not the message it should be")
    }
    return message
  }

  /// An error about the current record.
  func error(_ kind: DamageKind, address: UInt64? = nil, _ message: String) -> ImageError {
    ImageError(kind, file: path, byteOffset: recordOffset, address: address, message)
  }

  private func truncated(_ left: UInt64, of wanted: UInt64) -> ImageError {
    error(.truncated, "the file ends \(wanted - left) bytes too early")
  }

  private mutating func skipMagics(_ magics: [UInt32]) throws(ImageError) {
    for magic in magics {
      guard byteCount >= UInt64(4 * magics.count) else {
        throw truncated(byteCount, of: UInt64(4 * magics.count))
      }
      try fill(4)
      let found = buffer.loadUnaligned(fromByteOffset: consumed, as: UInt32.self).littleEndian
      guard found == magic else {
        throw ImageError(
          .magic, file: path, byteOffset: fileOffset - UInt64(filled - consumed),
          "magic number \(hexAddress(UInt64(found))) where \(hexAddress(UInt64(magic))) belongs")
      }
      drop(4)
    }
  }

  /// Takes `count` bytes that are in the buffer as read.
  private mutating func drop(_ count: Int) {
    digest.add(UnsafeRawBufferPointer(rebasing: buffer[consumed..<(consumed + count)]))
    consumed += count
  }

  /// Gets at least `count` bytes into the buffer. The caller has checked that the file has them.
  private mutating func fill(_ count: Int) throws(ImageError) {
    if filled - consumed >= count { return }
    let waiting = buffer[consumed..<filled]
    if count > buffer.count {
      let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 16)
      larger.copyMemory(from: UnsafeRawBufferPointer(rebasing: waiting))
      buffer.deallocate()
      buffer = larger
    } else if let base = buffer.baseAddress, let source = waiting.base.baseAddress {
      base.copyMemory(from: source + consumed, byteCount: waiting.count)
    }
    filled -= consumed
    consumed = 0
    let free = UnsafeMutableRawBufferPointer(rebasing: buffer[filled...])
    let offset = fileOffset
    let got = try onFile(file.path) { () throws(KernelError) in
      try file.read(into: free, at: offset)
    }
    filled += got
    fileOffset += UInt64(got)
    // The file may have shrunk since it was opened.
    guard filled >= count else { throw truncated(UInt64(filled), of: UInt64(count)) }
  }
}
