internal import CCRIUImages
internal import Kernel

extension RecordReader {
  /// Reads the next record, which must be the seal over everything before it, and the last one.
  mutating func checkSeal() throws(ImageError) {
    guard try advance(), let seal = try message(Memdump__Record.self).pointee.seal else {
      throw error(.truncated, "the record has no seal")
    }
    try check(seal)
  }

  /// Checks the current record as the seal.
  mutating func check(_ seal: UnsafeMutablePointer<Memdump__Seal>) throws(ImageError) {
    guard Digest128(seal.pointee.preceding.pointee) == digestBeforeRecord else {
      throw error(.digest, "the file's bytes are not those that were written")
    }
    guard record.count == Self.sealLength else {
      throw error(.message, "the seal is \(record.count) bytes long, not \(Self.sealLength)")
    }
    guard try !advance() else { throw error(.record, "there are bytes after the seal") }
  }

  /// A record with a seal with a digest: two headers of two bytes, and two fields of nine.
  private static var sealLength: Int { 22 }
}

extension Digest128 {
  /// Takes the digest out of our records' message.
  init(_ message: Memdump__Digest128) { self.init(high: message.high, low: message.low) }
}

extension TargetIdentity {
  /// Takes the identity out of our records' message.
  init(_ message: Memdump__Target) {
    self.init(
      pid: message.pid, startTicks: message.start_ticks, bootID: String(cString: message.boot_id),
      command: String(cString: message.command))
  }
}
