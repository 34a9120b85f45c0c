internal import Kernel

/// CRIU's images as they come over a link, into the directory `criu` of a session.
///
/// Takes anything that may come: names that CRIU's images cannot have are refused before a file is
/// touched, each file is new, and has the length and digest that the sender says. Dropped, it
/// removes what came.
package struct IncomingState: ~Copyable {
  /// Images that CRIU may send: some for each process and each file that it has open.
  private static let fileLimit = 1 << 18

  private let state: StateImages
  private let subject: String
  private let byteLimit: UInt64
  private var file: IncomingFile?
  private var fileCount = 0
  private var bytesStored: UInt64 = 0

  /// The processes whose memory the rounds have, the target first.
  package var targets: [TargetIdentity] { state.targets }

  /// Stores into the session at `path`, over its rounds.
  ///
  /// - Parameter byteLimit: bytes that may be written in all.
  package init(into path: String, from subject: String, byteLimit: UInt64) throws(ImageError) {
    state = try StateImages(path)
    self.subject = subject
    self.byteLimit = byteLimit
  }

  /// Carries out one message. True when CRIU's images are complete.
  package mutating func accept(_ message: MoveMessage) throws(ImageError) -> Bool {
    switch message {
    case .beginFile(let name):
      fileCount += 1
      guard file == nil, fileCount <= Self.fileLimit else { throw refused("too many images") }
      guard Self.isImageName(name) else {
        throw refused("no image of CRIU's is called \(name.debugDescription)")
      }
      file = try IncomingFile(
        name, in: state.directory, limit: byteLimit - bytesStored, sync: false)
    case .data(let bytes):
      guard let file else { throw refused("bytes of no image") }
      bytesStored += UInt64(bytes.count)
      try appendAll(bytes, to: file)
    case .endFile(let count, let digest):
      guard let ended = file else { throw refused("the end of no image") }
      file = nil
      try ended.finish(FileDigest(name: "", byteCount: count, digest: digest), sync: false)
    case .dumped:
      guard file == nil else { throw refused("the end within an image") }
      return true
    default: throw refused("a message out of turn")
    }
    return false
  }

  /// Lets the images refer to the rounds, and gives their directory its name.
  package consuming func complete() throws(ImageError) {
    try state.referToRounds()
    try state.publish(sync: false)
  }

  /// What CRIU calls its images: lower case letters, digits, and few other characters; `.img` last.
  static func isImageName(_ name: String) -> Bool {
    let bytes = Array(name.utf8)
    guard (5...96).contains(bytes.count), name.hasSuffix(".img"), bytes[0] != UInt8(ascii: "."),
      name != ImageFormat.sessionName
    else { return false }
    return bytes.allSatisfy { byte in
      (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
        || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
        || [UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_")].contains(byte)
    }
  }

  private func appendAll(_ bytes: [UInt8], to file: IncomingFile) throws(ImageError) {
    var failure: ImageError?
    bytes.withUnsafeBytes { bytes in
      do throws(ImageError) { try file.append(bytes) } catch { failure = error }
    }
    if let failure { throw failure }
  }

  private func refused(_ message: String) -> ImageError {
    ImageError(.stream, file: subject, message)
  }
}
