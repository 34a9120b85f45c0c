public import Images
public import Kernel
public import Predump
internal import SystemPackage

/// Why CRIU's part of a dump, a restore or a migration did not succeed.
public enum MigrationError: Error, Sendable {
  /// Images cannot be written or read.
  case images(ImageError)
  /// The process is gone, is another one, or may not be touched.
  case process(PredumpError)
  /// The process runs: what the rounds hold is not what it holds now.
  case notStopped(pid: Int32)
  /// There is no CRIU to be run.
  case noCRIU(path: String, KernelError)
  /// CRIU failed; `log` names its log, and `lines` are what it says there.
  case criu(action: String, end: String, log: String, lines: [String])
  /// The command that decides over the process did not succeed: the process runs on.
  case declined(command: String, end: String)
  /// The other side of a migration gave up; it says why.
  case refusedThere(String)
  /// Nobody can tell whether the copy of these processes runs at the destination: they stay held here.
  /// `directory` has what `MoveResolution` needs.
  case undecided(pid: Int32, destination: String, directory: String, reason: String)
  /// The chain is not one that can be restored.
  case notRestorable(ChainReport)
  /// A process ran before its memory was there, and the rest could not be brought: it was killed.
  case incomplete(directory: String, reason: String)
  /// The other side of a connection said something that makes no sense.
  case peer(String)
  /// Anything else that the kernel refused.
  case kernel(KernelError)
}

extension MigrationError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .images(let error): "\(error)"
    case .process(let error): "\(error)"
    case .notStopped(let pid):
      "process \(pid) is not stopped: it may have written since the last round; "
        + "dump it with predump --leave stopped"
    case .noCRIU(let path, let error):
      "criu cannot be run as \(path) (\(error.errno.description)): install it or name it with --criu"
    case .criu(let action, let end, let log, let lines):
      (["criu \(action) \(end); its log \(log) says:"] + lines).joined(separator: "\n  ")
    case .declined(let command, let end): "\(command) \(end): the process runs on here"
    case .refusedThere(let text): "the other side gave up: \(text)"
    case .undecided(let pid, let destination, let directory, let reason):
      "process \(pid) stays held here: it may run at \(destination) by now, which does not say "
        + "(\(reason)). Ask again with memdump resolve \(directory), or, when you know, "
        + "add --outcome running (it is ended here) or --outcome aborted (it runs on here)"
    case .notRestorable(let report):
      "\(report.directory) cannot be restored; restore-check says what is wrong with it"
    case .incomplete(let directory, let reason):
      "the restored process was killed: it ran before all of its memory was there, and the rest could "
        + "not be given (\(reason)). \(directory) has it as it was dumped: memdump restore brings that "
        + "back"
    case .peer(let text): text
    case .kernel(let error): "\(error)"
    }
  }
}

extension MigrationError {
  /// Sorts what the layers below throw.
  init(_ error: any Error) {
    switch error {
    case let error as MigrationError: self = error
    case let error as ImageError where error.kind == .link: self = .process(.link(error))
    case let error as ImageError
    where [.noSpace, .diskQuotaExceeded].contains(error.cause?.errno):
      self = .process(.outOfSpace(error))
    case let error as ImageError: self = .images(error)
    case let error as PredumpError: self = .process(error)
    case let error as ChannelError: self = .process(.link(ImageError(error)))
    case let error as KernelError: self = .kernel(error)
    default:
      self = .kernel(KernelError(call: "migration", subject: "\(error)", errno: .ioError))
    }
  }
}
