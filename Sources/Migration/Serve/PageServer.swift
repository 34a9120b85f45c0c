internal import Images
internal import Kernel

/// Where a page server listens.
public enum ServerAddress: Sendable, Equatable {
  /// A unix(7) socket. `criu lazy-pages` takes it as a descriptor only (`--ps-socket`).
  case local(path: String)
  /// TCP.
  case tcp(host: String, port: UInt16)
}

/// What a page server was asked for.
public struct ServeSummary: Sendable, Equatable {
  /// Answered requests.
  public var requests: UInt64 = 0
  /// Pages sent.
  public var pages: UInt64 = 0
}

/// Gives the pages of a chain to `criu lazy-pages --page-server`, straight from the rounds.
public struct PageServer: ~Copyable {
  /// The most pages in one answer. CRIU asks for no more than 4 MiB at once, and takes fewer than it
  /// asked for.
  private static let answerPages = 1024

  private let directory: String
  private let socket: ListeningSocket
  private var sources: [Int32: Source]

  private final class Source {
    var pages: PageSource
    init(_ pages: consuming PageSource) { self.pages = pages }
  }

  /// Indexes the process's pages of the chain in `directory`, and listens.
  public init(directory: String, address: ServerAddress) throws(MigrationError) {
    do {
      var sources: [Int32: Source] = [:]
      for pid in try ImageChain(directory).processes() {
        sources[pid] = Source(try PageSource(directory, pid: pid))
      }
      let socket = try Self.listen(address)
      self.socket = socket
      self.sources = sources
      self.directory = directory
    } catch { throw MigrationError(error) }
  }

  /// The TCP port.
  public func port() throws(MigrationError) -> UInt16 {
    do throws(KernelError) { return try socket.port() } catch { throw .kernel(error) }
  }

  /// Answers one client until it is done.
  ///
  /// - Throws: `.peer` if it says something that is not of the protocol, or asks for a page that the
  ///   chain does not have; `.images` if a page cannot be read. The connection is closed then, which
  ///   the client sees as an error: it is never given a wrong page.
  public mutating func serveOne() throws(MigrationError) -> ServeSummary {
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Self.answerPages * Int(pageBytes) + PageServerMessage.byteCount,
      alignment: Int(pageBytes))
    defer { buffer.deallocate() }
    let head = UnsafeMutableRawBufferPointer(rebasing: buffer[..<PageServerMessage.byteCount])
    var summary = ServeSummary()
    do {
      let client = try socket.accept()
      while try client.receive(into: head) {
        let message = PageServerMessage(UnsafeRawBufferPointer(head))
        switch message.word {
        case .get:
          let count = try answer(message, buffer)
          try client.send(
            UnsafeRawBufferPointer(
              rebasing: buffer[..<(PageServerMessage.byteCount + count * Int(pageBytes))]))
          summary.requests += 1
          summary.pages += UInt64(count)
        case .close, .forceClose:
          let status: Int32 = 0
          try withUnsafeBytes(of: status) { try client.send($0) }
          return summary
        case .add, nil:
          throw MigrationError.peer(
            "the client sent word \(message.command), which asks for nothing")
        }
      }
      return summary
    } catch { throw MigrationError(error) }
  }

  /// Fills `buffer` with an answer's head and pages; how many pages.
  private func answer(_ message: PageServerMessage, _ buffer: UnsafeMutableRawBufferPointer) throws
    -> Int
  {
    guard message.address % pageBytes == 0, message.pageCount > 0,
      let pid = Int32(exactly: message.who), let source = sources[pid]
    else {
      throw MigrationError.peer(
        "the client asks for \(message.pageCount) pages at \(hexAddress(message.address)) of "
          + "process \(message.who), which are not in \(directory)")
    }
    let wanted = Int(min(message.pageCount, UInt64(Self.answerPages)))
    let first = PageServerMessage.byteCount
    let pages = UnsafeMutableRawBufferPointer(
      rebasing: buffer[first..<(first + wanted * Int(pageBytes))])
    let count = try source.pages.read(from: message.address, into: pages)
    guard count > 0 else {
      throw MigrationError.peer(
        "the client asks for page \(hexAddress(message.address)) of process \(pid), which is not in "
          + directory)
    }
    message.answer(pageCount: UInt64(count)).store(in: buffer)
    return count
  }

  private static func listen(_ address: ServerAddress) throws(KernelError) -> ListeningSocket {
    switch address {
    case .local(let path): try ListeningSocket(local: path)
    case .tcp(let host, let port): try ListeningSocket(host: host, port: port)
    }
  }
}
