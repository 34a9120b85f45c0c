internal import CLinux
internal import Glibc

/// The two ends of a pipe, both close-on-exec.
package struct OwnedPipe: ~Copyable, Sendable {
  /// Where bytes come out.
  package let output: OwnedDescriptor
  /// Where bytes go in.
  package let input: OwnedDescriptor

  /// Makes a pipe.
  package init() throws(KernelError) {
    var numbers: [CInt] = [0, 0]
    _ = try invoke("pipe2", on: "a pipe") { clinux_pipe(&numbers) }
    output = OwnedDescriptor(owning: numbers[0])
    input = OwnedDescriptor(owning: numbers[1])
  }

  /// The next short line that comes out of the pipe; waits for it.
  package func line() throws(KernelError) -> String {
    let number = output.number
    var word: [UInt8] = []
    var byte: UInt8 = 0
    while true {
      let count = try invoke("read", on: "a pipe") { clinux_read(number, &byte, 1) }
      if count == 0 || byte == UInt8(ascii: "\n") { break }
      word.append(byte)
    }
    return String(decoding: word, as: UTF8.self)
  }

  /// Moves up to `count` bytes from the pipe `source` to `target`, without copying them where the
  /// kernel can. 0 at the pipe's end.
  package static func move(
    from source: borrowing OwnedDescriptor, to target: borrowing OwnedDescriptor, count: Int
  ) throws(KernelError) -> Int {
    let (from, to) = (source.number, target.number)
    return try invoke("splice", on: "a pipe") { clinux_splice(from, to, count) }
  }
}

/// Waits for descriptors.
package enum Readiness {
  /// The indices of `descriptors` that can be read without waiting, or were hung up; waits until
  /// there is one, or for so many milliseconds. Negative numbers are passed over.
  package static func wait(for descriptors: [CInt], milliseconds: CInt = -1) throws(KernelError)
    -> [Int]
  {
    var entries = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    _ = try invoke("poll", on: "\(descriptors.count) descriptors") { () -> CInt in
      let count = poll(&entries, nfds_t(entries.count), milliseconds)
      return count < 0 ? -errno : count
    }
    return entries.indices.filter { entries[$0].revents != 0 }
  }
}
