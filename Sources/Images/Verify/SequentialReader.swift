internal import Kernel

/// Reads a pages file from its first byte to its last, once, and digests it on the way.
struct SequentialReader: ~Copyable {
  private static let standardCapacity = 1 << 20

  private let file: File
  /// Length of the file when it was opened (bytes).
  let byteCount: UInt64
  /// Where the next byte to be taken is in the file.
  private(set) var offset: UInt64 = 0
  private var digest: RunningDigest
  // Allocated and freed here only; [consumed, filled) has been read and waits.
  private var buffer: UnsafeMutableRawBufferPointer
  private var consumed = 0
  private var filled = 0

  /// Opens the file `name`.
  init(_ name: String, in directory: borrowing Directory) throws(ImageError) {
    let path = directory.join(name)
    let opened = try onFile(path) { () throws(KernelError) in try directory.openFile(name) }
    let file = File(opened, path: path)
    let byteCount = try onFile(path) { () throws(KernelError) in try file.byteCount() }
    let digest = try onFile(path) { () throws(KernelError) in try RunningDigest() }
    self.file = file
    self.byteCount = byteCount
    self.digest = digest
    buffer = .allocate(byteCount: Self.standardCapacity, alignment: ImageFormat.page)
  }

  deinit { buffer.deallocate() }

  /// How people call the file.
  var path: String { file.path }

  /// Digest of the bytes taken so far.
  var digestSoFar: Digest128 { digest.value }

  /// Takes the next `count` bytes, which are good until the next call. Nil if the file ends before.
  mutating func take(_ count: Int) throws(ImageError) -> UnsafeRawBufferPointer? {
    if filled - consumed < count {
      guard UInt64(count) <= byteCount - min(offset, byteCount) else { return nil }
      guard try fill(count) else { return nil }
    }
    let bytes = UnsafeRawBufferPointer(rebasing: buffer[consumed..<(consumed + count)])
    digest.add(bytes)
    consumed += count
    offset += UInt64(count)
    return bytes
  }

  private mutating func fill(_ count: Int) throws(ImageError) -> Bool {
    let waiting = UnsafeRawBufferPointer(rebasing: buffer[consumed..<filled])
    if count > buffer.count {
      let larger = UnsafeMutableRawBufferPointer.allocate(
        byteCount: count, alignment: ImageFormat.page)
      larger.copyMemory(from: waiting)
      buffer.deallocate()
      buffer = larger
    } else {
      buffer.copyMemory(from: waiting)
    }
    filled -= consumed
    consumed = 0
    let free = UnsafeMutableRawBufferPointer(rebasing: buffer[filled...])
    let position = offset + UInt64(filled)
    filled += try onFile(file.path) { () throws(KernelError) in
      try file.read(into: free, at: position)
    }
    return filled >= count
  }
}
