internal import Glibc
internal import Images
internal import Kernel

/// A directory in memory, with a chain of two rounds whose files are what a fuzzer makes them.
package final class FuzzPlace: @unchecked Sendable {
  // Sendable: a fuzzer, and each test, uses it from one thread.
  static let sessionName = "memdump-session.img"
  private static let roundFiles = [
    "memdump-7.img", "pagemap-7.img", "pages-1.img", "pagemap-shmem-9.img", "pages-2.img",
    "mm-7.img", "inventory.img", "stats-dump",
  ]
  /// Every file that there may be; `pack` numbers them.
  private static let names =
    [sessionName] + roundFiles.map { "round-001/\($0)" } + roundFiles.map { "round-002/\($0)" }

  /// The session's directory.
  package let path: String
  /// A good chain as memdump writes it.
  let good: [String: [UInt8]]
  /// The same as CRIU would have written it.
  let goodWithoutRecords: [String: [UInt8]]
  private var present: [String: [UInt8]] = [:]

  private struct SystemError: Error { let errno: CInt }

  /// Makes the directory below `parent`, and the good chain with the writer that dumps use.
  package init(below parent: String = "/dev/shm") throws {
    var template = Array("\(parent)/memdump-fuzz-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw SystemError(errno: errno) }
    let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    try SeedChain.write(to: path)
    var good: [String: [UInt8]] = [:]
    for name in Self.names { good[name] = Self.read("\(path)/\(name)") }
    self.path = path
    self.good = good
    goodWithoutRecords = good.filter {
      $0.key != Self.sessionName && !$0.key.contains("/memdump-")
    }
    present = good
  }

  /// Removes the directory and all in it.
  package func remove() {
    set([:])
    for round in ["round-001", "round-002"] {
      unlink("\(path)/\(round)/parent")
      rmdir("\(path)/\(round)")
    }
    rmdir(path)
  }

  deinit { remove() }

  /// Gives the chain these files and no others.
  func set(_ files: [String: [UInt8]]) {
    for name in Self.names where files[name] != present[name] {
      guard let bytes = files[name] else {
        unlink("\(path)/\(name)")
        continue
      }
      try? Self.write(bytes, to: "\(path)/\(name)")
    }
    present = files
  }

  /// All files as one input: number, length (two bytes), bytes; and so on.
  func pack(_ files: [String: [UInt8]]) -> [UInt8] {
    Self.names.enumerated().flatMap { index, name -> [UInt8] in
      guard let bytes = files[name] else { return [] }
      return [UInt8(index), UInt8(bytes.count & 0xff), UInt8(bytes.count >> 8 & 0xff)] + bytes
    }
  }

  /// The files of an input, which may be cut off anywhere.
  func unpack(_ input: [UInt8]) -> [String: [UInt8]] {
    var files: [String: [UInt8]] = [:]
    var rest = input[...]
    while rest.count >= 3 {
      let head = Array(rest.prefix(3))
      rest = rest.dropFirst(3)
      let bytes = rest.prefix(Int(head[1]) | Int(head[2]) << 8)
      rest = rest.dropFirst(bytes.count)
      files[Self.names[Int(head[0]) % Self.names.count]] = Array(bytes)
    }
    return files
  }

  /// Writes a file.
  package static func write(_ bytes: [UInt8], to path: String) throws {
    let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw SystemError(errno: errno) }
    defer { close(file) }
    let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
    guard count == bytes.count else { throw SystemError(errno: errno) }
  }

  /// Reads a file; nil if there is none.
  package static func read(_ path: String) -> [UInt8]? {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    if file < 0 { return nil }
    defer { close(file) }
    var status = stat()
    guard fstat(file, &status) == 0 else { return nil }
    var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
    let count = bytes.withUnsafeMutableBytes { Glibc.read(file, $0.baseAddress, $0.count) }
    return count == bytes.count ? bytes : nil
  }
}
