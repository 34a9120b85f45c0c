internal import ArgumentParser
internal import Glibc
internal import Predump

/// Runs one command line from its arguments to the exit code.
enum Launcher {
  /// Never returns.
  static func run(_ arguments: [String]) -> Never {
    // A reader that has seen enough is no error: writes fail with EPIPE, which is heeded.
    signal(SIGPIPE, SIG_IGN)
    // A parent may have left it ignored; children that we wait for would be gone then.
    signal(SIGCHLD, SIG_DFL)
    exit(status(arguments).rawValue)
  }

  private static func status(_ arguments: [String]) -> ExitStatus {
    do {
      let parsed = try MemdumpCommand.parseAsRoot(arguments)
      if let command = parsed as? any Subcommand { return run(command) }
      var other = parsed
      try other.run()
      return .success
    } catch {
      return report(error, arguments)
    }
  }

  private static func run(_ command: any Subcommand) -> ExitStatus {
    let console = command.console()
    var status: ExitStatus
    do throws(CommandFailure) {
      status = try command.execute(console)
    } catch {
      console.report(error)
      status = error.status
    }
    if let problem = console.out.problem, status == .success {
      console.report(
        CommandFailure(.failure, kind: "output", "cannot write to standard output: \(problem)"))
      status = .failure
    }
    return status
  }

  /// Help and version are thrown, as wrong arguments are.
  private static func report(_ error: any Error, _ arguments: [String]) -> ExitStatus {
    let isJSON = arguments.prefix { $0 != "--" }.contains("--json")
    let console = Console(isJSON: isJSON, color: .auto)
    if MemdumpCommand.exitCode(for: error).isSuccess {
      console.out.write(MemdumpCommand.fullMessage(for: error) + "\n")
      return .success
    }
    let names = MemdumpCommand.configuration.subcommands.compactMap { $0.configuration.commandName }
    let first = arguments.first ?? ""
    var message = MemdumpCommand.message(for: error)
    if message.hasPrefix("Missing expected"), let unknown = unknownOption(arguments) {
      message = "Unknown option '\(unknown)'"
    }
    if !first.isEmpty && !first.hasPrefix("-") && !names.contains(first) {
      message = "there is no command '\(first)', only: \(names.joined(separator: ", "))"
    }
    console.report(CommandFailure(.usage, kind: "usage", message))
    console.err.write("Try 'memdump\(names.contains(first) ? " \(first)" : "") --help'.\n")
    return .usage
  }

  /// The first option that the command's help does not name: what is misspelt is also missing, and
  /// the parser tells of that first. A value that begins with -- may be taken for one.
  private static func unknownOption(_ arguments: [String]) -> String? {
    let command = MemdumpCommand.configuration.subcommands.first {
      $0.configuration.commandName == arguments.first
    }
    guard let command else { return nil }
    let help = MemdumpCommand.helpMessage(for: command, includeHidden: true)
    let known = Set(help.split { !($0.isLetter || $0.isNumber || $0 == "-") })
    let words = arguments.dropFirst().prefix { $0 != "--" }.map { $0.prefix { $0 != "=" } }
    return words.first { $0.hasPrefix("--") && !known.contains($0) }.map { String($0) }
  }
}
