import Foundation
import Kernel
import SystemPackage
import Testing

@Suite(.serialized) struct DirectoryTests {
  /// Runs `body` with a new directory, which is removed afterwards.
  private func withScratch(_ body: (String, borrowing Directory) throws -> Void) throws {
    let path = "/var/tmp/memdump-directory-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
    try #require(mkdir(path, 0o755) == 0)
    defer { try? FileManager.default.removeItem(atPath: path) }
    try body(path, try Directory.open(path, followSymlink: false))
  }

  private func mode(_ path: String) throws -> UInt16 {
    let attributes = try FileManager.default.attributesOfItem(atPath: path)
    return try #require(attributes[.posixPermissions] as? NSNumber).uint16Value
  }

  private func errno(_ body: () throws(KernelError) -> Void) -> Errno? {
    do throws(KernelError) {
      try body()
      return nil
    } catch { return error.errno }
  }

  @Test("files are the user's alone: 0600, directories 0700")
  func modes() throws {
    try withScratch { path, directory in
      let old = umask(0)
      defer { umask(old) }
      _ = try directory.createFile("file")
      _ = try directory.createDirectory("inner")
      #expect(try mode("\(path)/file") == 0o600)
      #expect(try mode("\(path)/inner") == 0o700)
    }
  }

  @Test("nothing that exists is created over")
  func exclusive() throws {
    try withScratch { path, directory in
      _ = try directory.createFile("name")
      #expect(
        errno { () throws(KernelError) in _ = try directory.createFile("name") } == .fileExists)
      #expect(
        errno { () throws(KernelError) in _ = try directory.createDirectory("name") } == .fileExists
      )
      // A link to nowhere must not be created through.
      symlink("\(path)/elsewhere", "\(path)/link")
      #expect(
        errno { () throws(KernelError) in _ = try directory.createFile("link") } == .fileExists)
      #expect(access("\(path)/elsewhere", F_OK) != 0)
    }
  }

  @Test("no symbolic link is followed")
  func symlinks() throws {
    try withScratch { path, directory in
      _ = try directory.createFile("file")
      _ = try directory.createDirectory("inner")
      try directory.createSymlink("to-file", to: "file")
      try directory.createSymlink("to-inner", to: "inner")
      #expect(
        errno { () throws(KernelError) in _ = try directory.openFile("to-file") }
          == .tooManySymbolicLinkLevels)
      #expect(
        errno { () throws(KernelError) in _ = try directory.directory("to-inner") }
          == .notDirectory)
      #expect(
        errno { () throws(KernelError) in _ = try directory.openFile("to-inner/any") }
          == .tooManySymbolicLinkLevels)
      #expect(
        errno { () throws(KernelError) in
          _ = try Directory.open("\(path)/to-inner", followSymlink: false)
        } == .notDirectory)
      _ = try Directory.open("\(path)/to-inner", followSymlink: true)
      #expect(try directory.readSymlink("to-inner") == "inner")
    }
  }

  @Test("no name leads out of the directory") func beneath() throws {
    try withScratch { path, directory in
      let inner = try directory.createDirectory("inner")
      _ = try directory.createFile("file")
      for name in ["../file", "/dev/null", "../inner/../file"] {
        #expect(
          errno { () throws(KernelError) in _ = try inner.openFile(name) } == .improperLink,
          "\(name)")
        #expect(
          errno { () throws(KernelError) in _ = try inner.createFile(name + "-new") }
            == .improperLink, "\(name)")
      }
      #expect(errno { () throws(KernelError) in _ = try inner.directory("..") } == .improperLink)
    }
  }

  @Test("only regular files are opened, and others do not hold us", .timeLimit(.minutes(1)))
  func kinds() throws {
    try withScratch { path, directory in
      #expect(mkfifo("\(path)/fifo", 0o600) == 0)
      _ = try directory.createDirectory("inner")
      #expect(
        errno { () throws(KernelError) in _ = try directory.openFile("fifo") } == .invalidArgument)
      #expect(
        errno { () throws(KernelError) in _ = try directory.openFile("inner") } == .isDirectory)
      let devices = try Directory.open("/dev", followSymlink: true)
      #expect(
        errno { () throws(KernelError) in _ = try devices.openFile("full") } == .invalidArgument)
    }
  }

  @Test("a rename replaces only where that is asked for")
  func rename() throws {
    try withScratch { _, directory in
      _ = try directory.createFile("a")
      _ = try directory.createFile("b")
      #expect(
        errno { () throws(KernelError) in try directory.rename("a", to: "b") } == .fileExists)
      try directory.renameReplacing("a", to: "b")
      #expect(try directory.names() == ["b"])
      try directory.rename("b", to: "c")
      #expect(try directory.names() == ["c"])
    }
  }

  @Test("every name is listed, sorted, however many there are, and again")
  func names() throws {
    try withScratch { _, directory in
      // More than fit into one getdents64 buffer.
      let expected = (0..<1_500).map { "a rather long name to fill the buffer sooner \($0)" }
      for name in expected { _ = try directory.createFile(name) }
      #expect(try directory.names() == expected.sorted())
      #expect(try directory.names().count == 1_500)
    }
  }

  @Test("what is opened stays open under its own name only")
  func removes() throws {
    try withScratch { _, directory in
      _ = try directory.createFile("file")
      _ = try directory.createDirectory("inner")
      #expect(
        errno { () throws(KernelError) in try directory.removeFile("inner") } == .isDirectory)
      try directory.removeFile("file")
      try directory.removeDirectory("inner")
      #expect(try directory.names().isEmpty)
      #expect(try directory.freeBytes() > 0)
    }
  }
}
