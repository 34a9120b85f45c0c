internal import Kernel

/// Writes one `pages-N.img` in large sequential writes.
struct PayloadWriter: ~Copyable {
  private static let capacity = 1 << 20
  /// From here on a write of its own costs less than copying the bytes to the buffer.
  private static let directBytes = 64 << 10
  /// How much may wait in the page cache before the disk is set to work on it.
  private static let writebackBytes: UInt64 = 8 << 20

  let name: String
  private let file: File
  private var digest = RunningDigest()
  private var written: UInt64 = 0
  private let sync: Bool
  /// Up to where the disk has been set to work.
  private var started: UInt64 = 0
  // Allocated and freed here only; `filled` stays at or below its length.
  private let buffer: UnsafeMutableRawBufferPointer
  private var filled = 0

  /// Creates the file `name`, which must not exist.
  ///
  /// - Parameter sync: the disk then works while pages are still being compressed, so that little is
  ///   left to wait for in `finish`.
  init(_ name: String, in directory: borrowing Directory, sync: Bool) throws(ImageError) {
    let path = directory.join(name)
    self.name = name
    self.sync = sync
    let created = try onFile(path) { () throws(KernelError) in try directory.createFile(name) }
    file = File(created, path: path)
    buffer = .allocate(byteCount: Self.capacity, alignment: ImageFormat.page)
  }

  deinit { buffer.deallocate() }

  /// Bytes so far.
  var byteCount: UInt64 { written + UInt64(filled) }

  /// Appends bytes.
  mutating func append(_ bytes: UnsafeRawBufferPointer) throws(ImageError) {
    if bytes.count > buffer.count - filled { try flush() }
    if bytes.count >= Self.directBytes {
      try flush()
      return try write(bytes)
    }
    guard let base = buffer.baseAddress, let source = bytes.baseAddress else { return }
    (base + filled).copyMemory(from: source, byteCount: bytes.count)
    filled += bytes.count
  }

  /// Appends zeros up to a multiple of the page length.
  mutating func align() throws(ImageError) {
    let gap = Int((pageBytes - byteCount % pageBytes) % pageBytes)
    if gap > buffer.count - filled { try flush() }
    guard let base = buffer.baseAddress else { return }
    (base + filled).initializeMemory(as: UInt8.self, repeating: 0, count: gap)
    filled += gap
  }

  /// Writes out the buffer; with `sync`, makes the bytes survive a power cut.
  mutating func finish(sync: Bool) throws(ImageError) -> FileDigest {
    try flush()
    if sync { try onFile(file.path) { () throws(KernelError) in try file.sync() } }
    return FileDigest(name: name, byteCount: written, digest: digest.value)
  }

  private mutating func flush() throws(ImageError) {
    if filled == 0 { return }
    let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<filled])
    filled = 0
    try write(bytes)
  }

  private mutating func write(_ bytes: UnsafeRawBufferPointer) throws(ImageError) {
    try onFile(file.path) { () throws(KernelError) in try file.write(bytes) }
    digest.add(bytes)
    written += UInt64(bytes.count)
    if sync, written - started >= Self.writebackBytes {
      file.startWriteback(from: started, byteCount: written - started)
      started = written
    }
  }
}
