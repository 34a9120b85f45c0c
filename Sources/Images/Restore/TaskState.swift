internal import Kernel

/// The state that `core-PID.img` says its process is to be restored in.
///
/// A process that memdump stopped for the dump is dumped by CRIU as a stopped one, and would be
/// restored as such. It ran before, so it is to run again.
enum TaskState {
  // CRIU: compel/include/uapi/task-state.h.
  private static let alive: UInt8 = 1
  private static let stopped: UInt8 = 3
  /// The most bytes of the image, which may come from elsewhere: signals that wait take 128 each.
  private static let byteLimit: UInt64 = 64 << 20

  /// Makes a stopped process a running one.
  static func makeRunning(pid: Int32, in directory: borrowing Directory) throws(ImageError) {
    let name = "core-\(pid).img"
    let path = directory.join(name)
    let size = try onFile(path) { () throws(KernelError) in
      try File(directory.openFile(name), path: path).byteCount()
    }
    guard size <= byteLimit else {
      throw ImageError(.limit, file: path, "the image is longer than \(byteLimit) bytes")
    }
    var bytes = try onFile(path) { () throws(KernelError) in
      try readToEnd(directory.openFile(name), path: path)
    }
    // Two magic numbers and the length of the only record come first.
    guard let offset = stateOffset(in: bytes[min(12, bytes.count)...]) else {
      throw ImageError(.message, file: path, "the image has no task state where CRIU 4 has it")
    }
    if bytes[offset] != stopped { return }
    bytes[offset] = alive
    let changed = bytes
    try onFile(path) { () throws(KernelError) in
      try directory.removeFile(name)
      let file = File(try directory.createFile(name), path: path)
      try changed.withUnsafeBufferPointer { bytes throws(KernelError) in
        try file.write(UnsafeRawBufferPointer(bytes))
      }
    }
  }

  /// Where the state's one byte is: core_entry.tc (field 3), task_core_entry.task_state (field 1).
  private static func stateOffset(in core: ArraySlice<UInt8>) -> Int? {
    var fields = MessageFields(core)
    while let field = fields.next() {
      guard field.number == 3, case .bytes(let range) = field.value else { continue }
      var inner = MessageFields(core[range])
      while let field = inner.next() {
        if field.number == 1, case .integer(let range) = field.value {
          return range.count == 1 ? range.lowerBound : nil
        }
      }
    }
    return nil
  }
}

/// The fields of a protobuf message of which no generated code is at hand, in their order, and where
/// their values lie. Ends at the first thing that is no field.
struct MessageFields: IteratorProtocol {
  enum Value {
    case integer(Range<Int>)
    case bytes(Range<Int>)
    case fixed(Range<Int>)
  }

  private let message: ArraySlice<UInt8>
  private var position: Int

  init(_ message: ArraySlice<UInt8>) {
    self.message = message
    position = message.startIndex
  }

  mutating func next() -> (number: UInt64, value: Value)? {
    guard let tag = integer() else { return nil }
    let start = position
    switch tag & 7 {
    case 0:
      guard integer() != nil else { return nil }
      return (tag >> 3, .integer(start..<position))
    case 1: return skip(8).map { (tag >> 3, .fixed($0)) }
    case 2:
      guard let count = integer(), let count = Int(exactly: count) else { return nil }
      return skip(count).map { (tag >> 3, .bytes($0)) }
    case 5: return skip(4).map { (tag >> 3, .fixed($0)) }
    default: return nil
    }
  }

  private mutating func skip(_ count: Int) -> Range<Int>? {
    guard count <= message.endIndex - position else { return nil }
    defer { position += count }
    return position..<(position + count)
  }

  private mutating func integer() -> UInt64? {
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while position < message.endIndex, shift < 64 {
      let byte = message[position]
      position += 1
      value |= UInt64(byte & 0x7f) << shift
      if byte & 0x80 == 0 { return value }
      shift += 7
    }
    return nil
  }
}
