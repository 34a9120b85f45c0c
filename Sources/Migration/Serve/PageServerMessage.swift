/// A message of CRIU's page server protocol: 32 bytes in the machine's own order.
///
///     u32 command: low 16 bits the word, high 16 bits pagemap flags
///     u32 padding
///     u64 pages
///     u64 address
///     u64 who: in `get` the process id, echoed in the answer
///
/// (criu: page-xfer.c, struct page_server_iov)
struct PageServerMessage: Equatable {
  static let byteCount = 32

  /// The words that a client that wants pages knows.
  enum Word: UInt32 {
    /// Pages follow, if the flags say that they are present (PS_IOV_ADD_F).
    case add = 6
    /// Asks for pages (PS_IOV_GET).
    case get = 7
    /// Ends the connection; an i32 status is the answer (PS_IOV_CLOSE).
    case close = 0x1023
    /// As `close` (PS_IOV_FORCE_CLOSE).
    case forceClose = 0x1024
  }

  var command: UInt32
  var pageCount: UInt64
  var address: UInt64
  var who: UInt64

  /// The word; nil if it is none of ours.
  var word: Word? { Word(rawValue: command & 0xffff) }

  /// The answer to a `get`: this many pages, present, follow.
  func answer(pageCount: UInt64) -> PageServerMessage {
    let present: UInt32 = 4
    var answer = self
    answer.command = Word.add.rawValue | present << 16
    answer.pageCount = pageCount
    return answer
  }

  /// Reads a message from its 32 bytes.
  init(_ bytes: UnsafeRawBufferPointer) {
    command = bytes.load(fromByteOffset: 0, as: UInt32.self)
    pageCount = bytes.load(fromByteOffset: 8, as: UInt64.self)
    address = bytes.load(fromByteOffset: 16, as: UInt64.self)
    who = bytes.load(fromByteOffset: 24, as: UInt64.self)
  }

  /// Writes the message into 32 bytes.
  func store(in bytes: UnsafeMutableRawBufferPointer) {
    bytes.storeBytes(of: command, toByteOffset: 0, as: UInt32.self)
    bytes.storeBytes(of: 0, toByteOffset: 4, as: UInt32.self)
    bytes.storeBytes(of: pageCount, toByteOffset: 8, as: UInt64.self)
    bytes.storeBytes(of: address, toByteOffset: 16, as: UInt64.self)
    bytes.storeBytes(of: who, toByteOffset: 24, as: UInt64.self)
  }
}
