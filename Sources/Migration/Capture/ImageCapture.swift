internal import Images
internal import Kernel
internal import SystemPackage

/// Where captured images go.
protocol CaptureSink: ~Copyable {
  /// Whether the pages of the pagemap with this file name are in the rounds.
  borrowing func hasPages(ofPagemap name: String) -> Bool
  /// Creates the file of an image.
  borrowing func create(_ name: String) throws(ImageError) -> File
  /// The image is complete.
  borrowing func complete(_ name: String) throws(ImageError)
}

extension StateImages: CaptureSink {
  borrowing func complete(_ name: String) {}
}

/// Takes the images that `criu dump --stream` sends, and lets the pages go that the rounds have.
///
/// CRIU connects to `streamer-capture.sock` in its images directory. For each image it sends a
/// length and a message with the file's name, then a byte with a pipe (SCM_RIGHTS); several pipes
/// are open at once. It is the way to make CRIU leave memory out that needs nothing of the kernel, and
/// costs the reading of all memory. (criu: img-streamer.c)
struct ImageCapture: ~Copyable {
  static let socketName = "streamer-capture.sock"
  /// The most bytes that are moved at once: a pipe has no more without privileges.
  private static let moveBytes = 1 << 20
  private static let longestName = 4096

  private let listener: ListeningSocket
  private var control: ConnectedSocket?
  private var images: [OpenImage]
  private let nowhere: File
  /// The pagemap that CRIU opened last: the pages that it opens next belong to it.
  private var lastPagemap: String
  /// Bytes of pages that were let go.
  private(set) var droppedBytes: UInt64
  /// Bytes that were kept.
  private(set) var keptBytes: UInt64

  private final class OpenImage {
    let pipe: OwnedDescriptor
    /// Nil for pages that the rounds have.
    let file: File?
    let name: String

    init(_ pipe: consuming OwnedDescriptor, _ file: consuming File?, name: String) {
      self.pipe = pipe
      self.name = name
      self.file = file
    }
  }

  /// What happened.
  enum Event: Equatable {
    /// CRIU has closed the images that it had opened, and something else is ready: the index that
    /// `run` was told.
    case other(Int)
    /// CRIU opens no more images.
    case finished
  }

  /// Waits for CRIU in `directory`.
  init(in directory: borrowing Directory) throws(KernelError) {
    let nowhere = try File.discarding()
    let listener = try ListeningSocket(local: Self.socketName, in: directory)
    self.listener = listener
    self.nowhere = nowhere
    control = nil
    (images, lastPagemap, droppedBytes, keptBytes) = ([], "", 0, 0)
  }

  /// Takes images until CRIU is done with them, or until one of `others` becomes readable and no
  /// image is open.
  mutating func run(into state: borrowing some CaptureSink & ~Copyable, others: [CInt]) throws
    -> Event
  {
    while true {
      let door = self.door
      let ready = try Readiness.wait(for: images.map { $0.pipe.number } + [door] + others)
      let open = images.count
      let moved = try ready.filter { $0 < open }.map { ($0, try move(images[$0])) }
      for (index, isAtEnd) in moved.reversed() where isAtEnd {
        let image = images.remove(at: index)
        if image.file != nil { try state.complete(image.name) }
      }
      if ready.contains(open) {
        if control == nil {
          control = try listener.accept()
        } else if try !takeRequest(state) {
          // CRIU is done, or gone: then its exit tells.
          while let image = images.popLast() {
            while try !move(image) {}
            if image.file != nil { try state.complete(image.name) }
          }
          return .finished
        }
      } else if let other = ready.first(where: { $0 > open }), images.isEmpty {
        return .other(other - open - 1)
      }
    }
  }

  /// Where CRIU knocks, or speaks.
  private var door: CInt {
    switch control {
    case .some(let control): return control.descriptor.number
    case .none: return listener.descriptor.number
    }
  }

  /// Takes nothing more: a CRIU that still writes fails.
  consuming func close() {}

  /// Moves what is in the pipe. True at its end.
  private mutating func move(_ image: OpenImage) throws(KernelError) -> Bool {
    let count: Int
    switch image.file {
    case .some(let file):
      count = try OwnedPipe.move(from: image.pipe, to: file.descriptor, count: Self.moveBytes)
      keptBytes += UInt64(count)
    case .none:
      count = try OwnedPipe.move(from: image.pipe, to: nowhere.descriptor, count: Self.moveBytes)
      droppedBytes += UInt64(count)
    }
    return count == 0
  }

  /// Takes the name of an image and its pipe. False if CRIU hung up.
  private mutating func takeRequest(_ state: borrowing some CaptureSink & ~Copyable) throws -> Bool
  {
    guard let name = try receiveName() else { return false }
    guard let pipe = try control?.receiveDescriptor() else { return false }
    if name.hasPrefix("pagemap-") { lastPagemap = name }
    let isDropped = name.hasPrefix("pages-") && state.hasPages(ofPagemap: lastPagemap)
    images.append(OpenImage(pipe, isDropped ? nil : try state.create(name), name: name))
    return true
  }

  /// The name in the next request: { u32 length, message { 1: filename } }.
  private func receiveName() throws -> String? {
    var length: UInt32 = 0
    guard try withUnsafeMutableBytes(of: &length, { try receive($0) }) else { return nil }
    let count = Int(UInt32(littleEndian: length))
    var message = [UInt8](repeating: 0, count: min(count, Self.longestName))
    guard count == message.count, try message.withUnsafeMutableBytes({ try receive($0) }) else {
      throw Self.malformed
    }
    guard message.first == 0x0a, message.count > 2 else { throw Self.malformed }
    // The name's length takes one byte, or two from 128 on.
    let start = message[1] & 0x80 == 0 ? 2 : 3
    let name = message.dropFirst(start)
    let said = Int(message[1] & 0x7f) + (start == 3 ? Int(message[2]) << 7 : 0)
    guard said == name.count else { throw Self.malformed }
    return String(decoding: name, as: UTF8.self)
  }

  private func receive(_ bytes: UnsafeMutableRawBufferPointer) throws(KernelError) -> Bool {
    switch control {
    case .some(let control): return try control.receive(into: bytes)
    case .none: return false
    }
  }

  private static var malformed: MigrationError {
    .peer("criu asks for an image in words that are not those of CRIU 4's image streamer")
  }
}
