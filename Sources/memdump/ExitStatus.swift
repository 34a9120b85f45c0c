/// The exit codes of every command. Codes that are not listed mean failure.
enum ExitStatus: Int32, CaseIterable {
  case success = 0
  case failure = 1
  case overBudget = 3
  case noImages = 10
  case damaged = 12
  case notRestorable = 13
  case targetGone = 20
  case notPermitted = 21
  case unsupportedKernel = 22
  case notConverged = 23
  case unsuitableTarget = 24
  case outOfSpace = 25
  case unusableDirectory = 26
  case linkBroken = 27
  case commandFailed = 28
  case undecided = 29
  case usage = 64
  case hungUp = 129
  case interrupted = 130
  case terminated = 143

  /// What the code says.
  var meaning: String {
    switch self {
    case .success: "done: complete and within budget, restorable, or all is well"
    case .failure: "any other failure"
    case .overBudget: "dump complete, but the freeze was longer than asked for"
    case .noImages: "no images there"
    case .damaged: "images damaged, or not what the process holds"
    case .notRestorable: "sound images of a dump without a final round, or without its end"
    case .targetGone: "no such process, or it exited or called execve"
    case .notPermitted: "not permitted"
    case .unsupportedKernel: "the kernel lacks a feature"
    case .notConverged: "did not converge, given up (--on-stall abort)"
    case .unsuitableTarget: "a process that cannot be dumped"
    case .outOfSpace: "no space left"
    case .unusableDirectory: "images directory unusable (not empty, a link, read-only, ...)"
    case .linkBroken: "the link to the other side broke; complete rounds are kept"
    case .commandFailed: "a command of --on-frozen or --on-event failed or took too long"
    case .undecided: "it may run at the destination or not: held here until that is decided"
    case .usage: "wrong usage"
    case .hungUp: "interrupted by SIGHUP"
    case .interrupted: "interrupted by SIGINT"
    case .terminated: "interrupted by SIGTERM"
    }
  }

  /// All codes, a line each, for help texts.
  static var table: String {
    allCases.map { "  \(String($0.rawValue).padded(to: 3, .right))  \($0.meaning)" }
      .joined(separator: "\n")
  }

  /// One line that names `statuses`, for the help of a command that can end with them.
  static func line(_ statuses: [ExitStatus]) -> String {
    let parts = statuses.map { "\($0.rawValue) \($0.summary)" }
    return "Exit codes: " + parts.joined(separator: ", ") + ". All are in memdump --help."
  }

  /// The meaning in as few words as a command's help has room for.
  private var summary: String {
    switch self {
    case .success: "done"
    case .failure: "failed"
    case .overBudget: "done after too long a freeze"
    case .noImages: "no images"
    case .damaged: "damaged or different"
    case .notRestorable: "not restorable yet"
    case .targetGone: "process gone"
    case .notPermitted: "not permitted"
    case .unsupportedKernel: "kernel too old"
    case .notConverged: "not converged"
    case .unsuitableTarget: "unsuitable process"
    case .outOfSpace: "no space"
    case .unusableDirectory: "directory unusable"
    case .linkBroken: "link broken"
    case .commandFailed: "command failed"
    case .undecided: "held, undecided"
    case .usage: "usage"
    case .hungUp: "SIGHUP"
    case .interrupted: "SIGINT"
    case .terminated: "SIGTERM"
    }
  }
}
