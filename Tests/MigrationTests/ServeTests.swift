import Foundation
import Images
import Kernel
import Migration
import TestSupport
import Testing

/// A lazy restore by a real criu whose pages come from memdump's chain.
@Suite(.serialized, .enabled(if: DumpedTarget.hasCRIU)) struct ServeTests {
  @Test(
    "a process restored before its memory has all of it once it came, byte for byte",
    arguments: [
      (PageCompression.none, UInt64(0)), (.lz4(pagesPerBlock: 64, acceleration: 1), 4 << 20),
    ])
  func serves(_ compression: PageCompression, eagerBytes: UInt64) throws {
    let target = try DumpedTarget(compression)
    var options = target.dumpOptions
    options.fate = .killed
    _ = try StateDump.run(options)
    let lazy = target.directory.file("lazy")
    let pages = try LazyImages.write(target.images, to: lazy, eagerBytes: eagerBytes)
    #expect(pages.lazyPages > 0)

    let server = try ChildProgram(
      productsDirectory.appendingPathComponent("memdump").path,
      ["serve", target.images, "--address", "127.0.0.1:0"], lifetime: 60)
    let line = try #require(server.line(beginning: "Serving on "))
    let port = try #require(line.split(separator: ":").last)
    let daemon = try ChildProgram(
      DumpedTarget.criuPath,
      [
        "lazy-pages", "-D", lazy, "-W", lazy, "--page-server", "--address", "127.0.0.1", "--port",
        String(port), "-o", "lazy.log",
      ], lifetime: 60)
    #expect(
      eventually {
        FileManager.default.fileExists(atPath: lazy + "/lazy-pages.socket")
          && target.state == nil
      })
    // Stopped, so that what it has can be compared before it writes.
    let restore = try ChildProgram(
      DumpedTarget.criuPath,
      [
        "restore", "-D", lazy, "-W", lazy, "--lazy-pages", "-d", "--leave-stopped", "-o",
        "restore.log",
      ], lifetime: 60)
    #expect(restore.wait() == 0)
    #expect(daemon.wait() == 0, "every page came")
    #expect(server.line(beginning: "Served \(Self.grouped(pages.lazyPages)) page") != nil)
    #expect(try target.differences() == [])
    kill(target.pid, SIGCONT)
    #expect(target.answer() == "ok")
  }

  private static func grouped(_ count: UInt64) -> String {
    count < 1000
      ? "\(count)" : "\(count / 1000),\(String(count % 1000 + 1000).dropFirst())"
  }
}
