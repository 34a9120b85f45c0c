/// One line of `/proc/PID/maps`.
package struct MapsEntry: Sendable, Equatable {
  /// Where the VMA lies.
  package var range: PageRange
  /// PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4.
  package var protection: UInt32
  /// MAP_SHARED, else MAP_PRIVATE.
  package var isShared: Bool
  /// Offset in the mapped file (bytes).
  package var fileOffset: UInt64
  /// Major << 32 | minor of the file's device.
  package var device: UInt64
  /// The file's inode; 0 if no file is mapped.
  package var inode: UInt64
  /// The path column, as the kernel escapes it; empty for plain anonymous memory.
  package var path: String

  /// Parses the whole file. Lines that are not a VMA's are passed over.
  ///
  /// - Returns: ascending, and no address twice. The file has both only of a process that stands
  ///   still: a VMA that merges with the next one after it was listed is listed again as the whole
  ///   (kernel: proc_get_vma goes on at the end of the last one). Only what is new is kept then.
  package static func parse(_ bytes: [UInt8]) -> [MapsEntry] {
    var entries: [MapsEntry] = []
    bytes.withUnsafeBufferPointer { buffer in
      var cursor = Cursor(bytes: buffer)
      while !cursor.atEnd {
        if var entry = MapsEntry(&cursor) {
          entry.cutOff(before: entries.last?.range.end ?? 0)
          if !entry.range.isEmpty { entries.append(entry) }
        }
        cursor.skipLine()
      }
    }
    return entries
  }

  private mutating func cutOff(before address: UInt64) {
    guard range.start < address else { return }
    if inode != 0 { fileOffset += min(address, range.end) - range.start }
    range.start = address
  }

  private init?(_ cursor: inout Cursor) {
    let start = cursor.hex()
    guard cursor.skip(UInt8(ascii: "-")) else { return nil }
    range = PageRange(start: start, end: cursor.hex())
    guard cursor.skip(0x20) else { return nil }
    protection = 0
    if cursor.next() == UInt8(ascii: "r") { protection |= 1 }
    if cursor.next() == UInt8(ascii: "w") { protection |= 2 }
    if cursor.next() == UInt8(ascii: "x") { protection |= 4 }
    isShared = cursor.next() == UInt8(ascii: "s")
    guard cursor.skip(0x20) else { return nil }
    fileOffset = cursor.hex()
    guard cursor.skip(0x20) else { return nil }
    device = cursor.hex() << 32
    guard cursor.skip(UInt8(ascii: ":")) else { return nil }
    device |= cursor.hex()
    guard cursor.skip(0x20) else { return nil }
    inode = cursor.decimal()
    path = cursor.restOfLine()
  }

  /// Walks the bytes of one buffer; every step checks the end.
  private struct Cursor {
    let bytes: UnsafeBufferPointer<UInt8>
    var position = 0

    init(bytes: UnsafeBufferPointer<UInt8>) { self.bytes = bytes }

    var atEnd: Bool { position >= bytes.count }

    mutating func next() -> UInt8 {
      guard !atEnd, bytes[position] != 0x0a else { return 0 }
      defer { position += 1 }
      return bytes[position]
    }

    mutating func skip(_ byte: UInt8) -> Bool {
      guard !atEnd, bytes[position] == byte else { return false }
      position += 1
      return true
    }

    mutating func hex() -> UInt64 {
      var value: UInt64 = 0
      while !atEnd {
        let byte = bytes[position]
        switch byte {
        case 0x30...0x39: value = value << 4 | UInt64(byte - 0x30)
        case 0x61...0x66: value = value << 4 | UInt64(byte - 0x61 + 10)
        default: return value
        }
        position += 1
      }
      return value
    }

    mutating func decimal() -> UInt64 {
      var value: UInt64 = 0
      while !atEnd, (0x30...0x39).contains(bytes[position]) {
        value = value &* 10 &+ UInt64(bytes[position] - 0x30)
        position += 1
      }
      return value
    }

    mutating func restOfLine() -> String {
      while !atEnd, bytes[position] == 0x20 { position += 1 }
      let start = position
      while !atEnd, bytes[position] != 0x0a { position += 1 }
      return start == position ? "" : String(decoding: bytes[start..<position], as: UTF8.self)
    }

    mutating func skipLine() {
      while !atEnd, bytes[position] != 0x0a { position += 1 }
      position += 1
    }
  }
}
