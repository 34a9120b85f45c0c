internal import CCRIUImages
internal import Kernel

/// What a new round needs to know of the one it is taken against.
package struct ParentRound: Sendable {
  package let name: String
  /// Digest of the parent's whole `memdump-PID.img`.
  let record: Digest128
  /// `img_version` of the parent's inventory.
  let imageVersion: UInt32

  /// Describes a round that was just written.
  init(_ name: String, record: Digest128, imageVersion: UInt32) {
    self.name = name
    self.record = record
    self.imageVersion = imageVersion
  }

  /// Reads the committed round `name` of `session`.
  init(_ name: String, in session: borrowing Directory, pid: Int32) throws(ImageError) {
    let directory = try onFile(session.join(name)) { () throws(KernelError) in
      try session.directory(name)
    }
    self.name = name
    record = try Digest128(ofFile: ImageFormat.recordName(pid: pid), in: directory)
    imageVersion = try Inventory.read(in: directory).version
  }
}

extension Digest128 {
  /// Digests the file `name`.
  init(ofFile name: String, in directory: borrowing Directory) throws(ImageError) {
    let path = directory.join(name)
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 * 1024, alignment: 4096)
    defer { buffer.deallocate() }
    do throws(KernelError) {
      let file = File(try directory.openFile(name), path: path)
      var digest = try RunningDigest()
      var offset: UInt64 = 0
      while true {
        let count = try file.read(into: buffer, at: offset)
        digest.add(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        offset += UInt64(count)
        if count < buffer.count { break }
      }
      self = digest.value
    } catch {
      throw ImageError(error, file: path)
    }
  }
}
