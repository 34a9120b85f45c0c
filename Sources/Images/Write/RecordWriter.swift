internal import CProtobufC
internal import Kernel

/// What a finished file holds.
struct FileDigest: Sendable, Equatable {
  /// Name in its directory.
  var name: String
  /// Length in bytes.
  var byteCount: UInt64
  /// Digest of all bytes.
  var digest: Digest128
}

/// Writes one image: magic numbers, then framed messages, through a buffer.
struct RecordWriter: ~Copyable {
  private static let standardCapacity = 64 * 1024

  let name: String
  private let file: ImageFile
  private var digest: RunningDigest
  private var byteCount: UInt64 = 0
  // Allocated and freed here only; `filled` stays at or below its length.
  private var buffer: UnsafeMutableRawBufferPointer
  private var filled = 0

  /// Creates the file `name`, which must not exist.
  init(
    _ name: String, in folder: borrowing some ImageFolder & ~Copyable, magics: [UInt32]
  ) throws(ImageError) {
    // What throws comes first: after it nothing can leave the buffer behind.
    try self.init(name, to: try folder.createImage(name), magics: magics)
  }

  /// Writes to a file that is open and empty.
  init(_ name: String, to file: consuming ImageFile, magics: [UInt32]) throws(ImageError) {
    let digest = try onFile(name) { () throws(KernelError) in try RunningDigest() }
    self.name = name
    self.digest = digest
    self.file = file
    buffer = .allocate(byteCount: Self.standardCapacity, alignment: 16)
    for magic in magics { put(magic) }
  }

  deinit { buffer.deallocate() }

  /// How people call the file.
  var path: String { file.path }

  /// Digest of all bytes before the next record's length.
  mutating func digestSoFar() throws(ImageError) -> Digest128 {
    try flush()
    return digest.value
  }

  /// Appends a framed message. What it points at must live until this returns.
  mutating func append<Message: ProtobufMessage>(_ message: Message) throws(ImageError) {
    // The copy is a local variable, so its address is stable for the calls below.
    var message = message
    let size = withUnsafeMutablePointer(to: &message) {
      protobuf_c_message_get_packed_size(
        UnsafeRawPointer($0).assumingMemoryBound(to: ProtobufCMessage.self))
    }
    guard let length = UInt32(exactly: size) else {
      throw ImageError(
        .limit, file: path, "a record of \(size) bytes does not fit its length field")
    }
    try makeRoom(size + 4)
    put(length)
    guard let base = buffer.baseAddress else { return }
    let target = (base + filled).assumingMemoryBound(to: UInt8.self)
    filled += withUnsafeMutablePointer(to: &message) {
      protobuf_c_message_pack(
        UnsafeRawPointer($0).assumingMemoryBound(to: ProtobufCMessage.self), target)
    }
  }

  /// Writes out the buffer; with `sync`, makes the bytes survive a power cut.
  mutating func finish(sync: Bool) throws(ImageError) -> FileDigest {
    try flush()
    let result = FileDigest(name: name, byteCount: byteCount, digest: digest.value)
    try file.finish(byteCount: byteCount, digest: result.digest, sync: sync)
    return result
  }

  private mutating func makeRoom(_ count: Int) throws(ImageError) {
    if buffer.count - filled >= count { return }
    try flush()
    if buffer.count >= count { return }
    buffer.deallocate()
    buffer = .allocate(byteCount: count, alignment: 16)
  }

  private mutating func flush() throws(ImageError) {
    if filled == 0 { return }
    let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<filled])
    try file.write(bytes)
    digest.add(bytes)
    byteCount += UInt64(filled)
    filled = 0
  }

  private mutating func put(_ value: UInt32) {
    buffer.storeBytes(of: value.littleEndian, toByteOffset: filled, as: UInt32.self)
    filled += 4
  }
}
