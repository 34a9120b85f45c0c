internal import ArgumentParser
internal import Migration

/// `memdump serve`: gives pages to a process that was restored before its memory was there.
struct ServeCommand: Subcommand {
  static let configuration = CommandConfiguration(
    commandName: "serve",
    abstract: "Give pages to criu lazy-pages, straight from the rounds.",
    usage: "memdump serve DIR [OPTIONS]",
    discussion: """
      Answers one client, and ends with it. --lazy-dir first writes a small directory for the other \
      machine: CRIU's images, the pages that cannot come later, and those written last.
      Example:
        memdump serve /var/tmp/dump --address :7777 --lazy-dir /var/tmp/lazy
        there: criu lazy-pages -D lazy --page-server --address HERE --port 7777 &
        there: criu restore -D lazy --lazy-pages -d
      \(ExitStatus.line([.success, .failure, .noImages, .damaged, .outOfSpace, .usage]))
      """)

  @Argument(help: ArgumentHelp("The dump's directory.", valueName: "dir"))
  var directory: String

  @Option(
    help: ArgumentHelp("Where to listen: HOST:PORT or unix:PATH.", valueName: "address"),
    transform: AddressValue.parser)
  var address: ServerAddress?

  @Option(help: ArgumentHelp("Write the directory for the lazy restore.", valueName: "new-dir"))
  var lazyDir: String?

  @Option(
    help: ArgumentHelp("Of what was written last, put this much into it.", valueName: "size"),
    transform: SizeValue.parser(0...(1 << 40), multipleOf: 1))
  var eager = SizeValue(bytes: 16 << 20)

  @OptionGroup var output: OutputOptions

  func console() -> Console { output.console }

  func validate() throws {
    if address == nil && lazyDir == nil {
      throw ValidationError("nothing to do: give --address, --lazy-dir or both")
    }
  }

  func execute(_ console: Console) throws(CommandFailure) -> ExitStatus {
    do throws(MigrationError) {
      if let lazyDir {
        let pages = try LazyImages.write(directory, to: lazyDir, eagerBytes: eager.bytes)
        if console.isJSON {
          console.event(
            "lazy-dir",
            LazyBody(path: lazyDir, pagesEager: pages.eagerPages, pagesLazy: pages.lazyPages))
        } else {
          console.print(
            "\(lazyDir): \(Units.count(pages.eagerPages)) pages in it, "
              + "\(Units.count(pages.lazyPages)) left to come")
        }
      }
      if let address { try serve(address, console) }
      return .success
    } catch { throw CommandFailure(error) }
  }

  private func serve(_ address: ServerAddress, _ console: Console) throws(MigrationError) {
    var server = try PageServer(directory: directory, address: address)
    let place: String
    switch address {
    case .local(let path): place = path
    case .tcp(let host, _): place = "\(host):\(try server.port())"
    }
    if console.isJSON {
      console.event("serving", ServingBody(address: place))
    } else {
      console.print("Serving on \(place)")
    }
    let summary = try server.serveOne()
    if console.isJSON {
      console.event("served", ServedBody(requests: summary.requests, pages: summary.pages))
    } else {
      console.print(
        "Served \(Units.count(summary.pages, "page")) in \(Units.count(summary.requests, "request"))"
      )
    }
  }
}

/// The JSON of a directory for a lazy restore.
struct LazyBody: Encodable, Sendable {
  let path: String
  let pagesEager: UInt64
  let pagesLazy: UInt64
}

/// The JSON of a server that listens.
struct ServingBody: Encodable, Sendable {
  let address: String
}

/// The JSON of a server that is done.
struct ServedBody: Encodable, Sendable {
  let requests: UInt64
  let pages: UInt64
}
