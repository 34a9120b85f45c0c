internal import Glibc
internal import Synchronization
internal import SystemPackage

/// Standard output or standard error.
final class TextStream: Sendable {
  private let descriptor: CInt
  private let failure = Atomic<CInt>(0)

  /// Whether a person looks at it.
  let isTerminal: Bool

  init(_ descriptor: CInt) {
    self.descriptor = descriptor
    isTerminal = isatty(descriptor) == 1
  }

  /// Why text was lost; nil if none was, and also if the reader just went away.
  var problem: String? {
    let code = failure.load(ordering: .relaxed)
    return code == 0 || code == EPIPE ? nil : Errno(rawValue: code).description
  }

  /// Columns of the terminal; 80 if there is none.
  var columns: Int {
    var size = winsize()
    guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
    return Int(size.ws_col)
  }

  /// Writes `text`; after a failure, nothing any more.
  func write(_ text: String) {
    guard failure.load(ordering: .relaxed) == 0 else { return }
    var text = text
    text.withUTF8 { bytes in
      var rest = UnsafeRawBufferPointer(bytes)
      while !rest.isEmpty {
        let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
        if count >= 0 {
          rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        } else if errno != EINTR {
          failure.store(errno, ordering: .relaxed)
          return
        }
      }
    }
  }
}
