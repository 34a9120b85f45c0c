public import Kernel
internal import SystemPackage

/// What kind of thing is wrong with images. The raw values are stable: reports carry them.
public enum DamageKind: String, Sendable, CaseIterable, Codable {
  /// The kernel refused to read or write.
  case inputOutput = "io"
  /// A file that must be there is not.
  case missingFile = "missing-file"
  /// A file is there that nothing refers to.
  case superfluousFile = "superfluous-file"
  /// A file does not start with its magic numbers.
  case magic
  /// A file ends in the middle of a record.
  case truncated
  /// A record's length or count is over the documented limit.
  case limit
  /// A record is not the protobuf message it should be, or lacks a field.
  case message
  /// A value is not one that the format defines.
  case value
  /// Entries are not ascending, or overlap.
  case order
  /// An address or count is not in whole pages, or runs over the address space.
  case alignment
  /// An entry's flags contradict each other or its blocks.
  case flags
  /// An entry's block sizes contradict its pages.
  case blocks
  /// A pages file is longer or shorter than its pagemap says.
  case payloadSize = "payload-size"
  /// Padding that is not zero.
  case padding
  /// A compressed block does not decode to its pages.
  case compressedBlock = "compressed-block"
  /// Decoded bytes are not those that were dumped.
  case digest
  /// A page that a round takes from its parent is in no ancestor.
  case parentPage = "parent-page"
  /// The link to the parent is broken, odd, or makes a circle.
  case parentLink = "parent-link"
  /// The parent is not the round that this one was taken against.
  case parentRecord = "parent-record"
  /// A page lies in no VMA of its round.
  case outsideVMA = "outside-vma"
  /// The inventory contradicts the images.
  case inventory
  /// memdump's own record contradicts the images.
  case record
  /// The session's record contradicts its rounds.
  case session
  /// A page of a lazy dump has no bytes in any image.
  case lazyPage = "lazy-page"
  /// Memory that only the process itself may read: no image has it.
  case unreadableMemory = "unreadable-memory"
  /// The link to the other side of a transfer broke, or was silent for too long.
  case link
  /// What came over a link is not what a memdump sends.
  case stream
  /// The images were asked for something out of order: a bug of the caller.
  case misuse
}

/// Why images cannot be written or read: which file, where, and what is wrong.
public struct ImageError: Error, Sendable, Equatable, CustomStringConvertible {
  /// What kind of thing is wrong.
  public let kind: DamageKind
  /// The file or directory, as people would write it.
  public let file: String
  /// Where in the file (bytes), if that is known.
  public let byteOffset: UInt64?
  /// Which address of the dumped process, or offset in the shared object, is concerned.
  public let address: UInt64?
  /// What is wrong, in words.
  public let message: String
  /// The system call that failed, if one did.
  public let cause: KernelError?

  /// Describes what is wrong with `file`.
  public init(
    _ kind: DamageKind, file: String, byteOffset: UInt64? = nil, address: UInt64? = nil,
    _ message: String, cause: KernelError? = nil
  ) {
    self.kind = kind
    self.file = file
    self.byteOffset = byteOffset
    self.address = address
    self.message = message
    self.cause = cause
  }

  /// Wraps a system call that failed on `file`.
  public init(_ cause: KernelError, file: String) {
    let kind: DamageKind = cause.errno == .noSuchFileOrDirectory ? .missingFile : .inputOutput
    self.init(kind, file: file, "\(cause.call): \(cause.errno.description)", cause: cause)
  }

  /// Where and what, in one line.
  public var description: String {
    var text = file
    if let byteOffset { text += " at byte \(byteOffset)" }
    if let address { text += " (address \(hexAddress(address)))" }
    return "\(text): \(message)"
  }
}

/// Runs `body` and turns its system call's failure into an `ImageError` about `file`.
@inline(__always)
func onFile<Value: ~Copyable>(
  _ file: @autoclosure () -> String, _ body: () throws(KernelError) -> Value
) throws(ImageError) -> Value {
  do throws(KernelError) {
    return try body()
  } catch {
    throw ImageError(error, file: file())
  }
}
