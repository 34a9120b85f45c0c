public import Images
public import Kernel
internal import SystemPackage
internal import Tracee

/// Why a dump or a check ended early. In every case the target runs on, untracked.
public enum PredumpError: Error, Sendable {
  /// There is no such process, or it ended or called execve meanwhile.
  case targetGone(pid: Int32, how: TargetEnd)
  /// The process is of a kind that cannot be dumped.
  case unsuitableTarget(pid: Int32, reason: String)
  /// The kernel, or memdump's privileges, do not suffice.
  case permission(String)
  /// The kernel lacks something.
  case unsupportedKernel(String)
  /// The images directory cannot be used.
  case imagesDirectory(path: String, reason: String)
  /// The file system of the images is full, or its quota is used up.
  case outOfSpace(ImageError)
  /// Images could not be written or read.
  case images(ImageError)
  /// The link to the other side of a transfer broke, or could not be made.
  case link(ImageError)
  /// The dirty set did not converge, and `onStall` says to give up.
  case notConverged(reason: StallReason, rounds: Int)
  /// The caller asked to stop.
  case interrupted
  /// The process could not be stopped.
  case freeze(String)
  /// A command of the user's failed, or took too long.
  case command(String)
  /// Anything else that the kernel refused.
  case kernel(KernelError)

  /// How a target ended.
  public enum TargetEnd: String, Sendable {
    /// There was none to begin with.
    case neverFound
    /// It exited or was killed.
    case exited
    /// It called execve: its memory is another program's now.
    case replaced
  }
}

extension PredumpError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .targetGone(let pid, .neverFound): "there is no process \(pid)"
    case .targetGone(let pid, .exited): "process \(pid) ended during the dump"
    case .targetGone(let pid, .replaced):
      "process \(pid) called execve during the dump: its old memory is gone; "
        + "dump it anew into another directory"
    case .unsuitableTarget(let pid, let reason): "process \(pid) cannot be dumped: \(reason)"
    case .permission(let text), .unsupportedKernel(let text), .freeze(let text),
      .command(let text):
      text
    case .imagesDirectory(let path, let reason): "images directory \(path): \(reason)"
    case .outOfSpace(let error):
      "\(error); free some space or choose another --images-dir, and run it again"
    case .images(let error): "\(error)"
    case .link(let error): "the link broke: \(error)"
    case .notConverged(let reason, let rounds):
      "not converged after \(rounds) rounds: \(reason); the rounds are kept. "
        + "Raise --target-downtime, or let --on-stall final take the longer freeze"
    case .interrupted: "interrupted; the process runs on untracked, complete rounds are kept"
    case .kernel(let error): "\(error)"
    }
  }
}

extension PredumpError {
  init(_ error: ImageError) {
    let full: Set<Errno> = [.noSpace, .diskQuotaExceeded]
    if error.kind == .link {
      self = .link(error)
    } else {
      self =
        error.cause.map { full.contains($0.errno) } ?? false ? .outOfSpace(error) : .images(error)
    }
  }

  init(_ error: TraceError) {
    switch error {
    case .kernel(let cause) where cause.errno == .notPermitted || cause.errno == .permissionDenied:
      self = .permission("\(cause); run memdump as root or with CAP_SYS_PTRACE")
    case .kernel(let cause): self = .kernel(cause)
    case .gone(let pid): self = .targetGone(pid: pid, how: .exited)
    case .noDescriptorFree: self = .permission("\(error)")
    case .alreadyTraced(let pid, _): self = .unsuitableTarget(pid: pid, reason: "\(error)")
    case .notStopping: self = .freeze("\(error)")
    case .noSuitableThread(let pid, _), .noGadget(let pid), .remoteCall(let pid, _, _):
      self = .unsuitableTarget(pid: pid, reason: "\(error)")
    }
  }
}
