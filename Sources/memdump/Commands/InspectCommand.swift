internal import ArgumentParser
internal import Images
internal import Kernel
internal import Predump

/// `memdump inspect`: shows what images hold.
struct InspectCommand: Subcommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect",
    abstract: "Show the rounds of a dump, and what was stored of each VMA.",
    usage: "memdump inspect DIR [--entries] [--json]",
    discussion: """
      Also reads directories that CRIU wrote. Nothing is checked: that is \
      memdump restore-check.
      Example:
        memdump inspect /var/tmp/dump
      \(ExitStatus.line([.success, .noImages, .damaged, .notPermitted, .usage]))
      """)

  @Argument(help: ArgumentHelp("The images: a dump's directory, or one round's.", valueName: "dir"))
  var directory: String

  @Flag(help: "List every pagemap entry of every round, as crit show does.")
  var entries = false

  @OptionGroup var output: OutputOptions

  func console() -> Console { output.console }

  func execute(_ console: Console) throws(CommandFailure) -> ExitStatus {
    do throws(ImageError) {
      let contents = try ChainContents(directory)
      if console.isJSON {
        console.event("inspect", InspectBody(contents, directory: directory))
      } else {
        InspectText(contents, console.outStyle).lines.forEach { console.print($0) }
      }
      if entries { try list(contents, console) }
      if let problem = contents.problems.first { throw problem }
      return .success
    } catch { throw CommandFailure(reading: error) }
  }

  private func list(_ contents: borrowing ChainContents, _ console: Console) throws(ImageError) {
    for round in contents.rounds {
      for stream in round.streams {
        let file = "\(round.name)/\(stream.stream.pagemapName)"
        if !console.isJSON { console.print("\n" + console.outStyle.bold(file)) }
        try contents.forEachEntry(of: stream.stream, in: round.name) { entry in
          show(entry, round.name, stream.stream.pagemapName, console)
        }
      }
    }
  }

  private func show(_ entry: PagemapEntry, _ round: String, _ file: String, _ console: Console) {
    if console.isJSON {
      console.event("entry", EntryBody(entry, round: round, file: file))
    } else {
      let blocks = entry.hasBlocks ? "  \(entry.blockSizes.count) blocks" : ""
      console.print(
        "  \(hexAddress(entry.range.start))  \(entry.range.pageCount)  \(entry.flags.criuName)"
          + blocks)
    }
  }
}
