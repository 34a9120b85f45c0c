internal import Images
internal import Kernel
internal import Migration
internal import Predump
internal import SystemPackage

/// Why a command ends without success: its exit code, a stable word for scripts, a message.
struct CommandFailure: Error {
  let status: ExitStatus
  let kind: String
  let message: String

  init(_ status: ExitStatus, kind: String, _ message: String) {
    self.status = status
    self.kind = kind
    self.message = message
  }

  /// Explains an error of a dump or of a comparison.
  init(_ error: PredumpError) {
    let (status, kind) = Self.classify(error)
    self.init(status, kind: kind, "\(error)")
  }

  /// Explains why images could not be read.
  init(reading error: ImageError) {
    let status: ExitStatus =
      switch error.cause?.errno {
      case .some(.permissionDenied), .some(.notPermitted): .notPermitted
      default: error.kind == .missingFile ? .noImages : .damaged
      }
    self.init(status, kind: error.kind.rawValue, "\(error)")
  }

  /// Explains why CRIU's part failed.
  init(_ error: MigrationError) {
    switch error {
    case .images(let cause): self.init(reading: cause)
    case .process(let cause): self.init(cause)
    case .notStopped:
      self.init(.unsuitableTarget, kind: "not-stopped", "\(error)")
    case .notRestorable(let report):
      let status: ExitStatus =
        switch report.verdict {
        case .noImages: .noImages
        case .consistentNotRestorable: .notRestorable
        default: .damaged
        }
      self.init(status, kind: report.verdict.rawValue, "\(error)")
    case .noCRIU: self.init(.failure, kind: "no-criu", "\(error)")
    case .criu(_, _, _, let lines):
      // CRIU says what failed in its log alone.
      let isFull = lines.contains { $0.contains("No space left on device") }
      self.init(isFull ? .outOfSpace : .failure, kind: "criu", "\(error)")
    case .refusedThere: self.init(.failure, kind: "refused-there", "\(error)")
    case .undecided: self.init(.undecided, kind: "undecided", "\(error)")
    case .declined: self.init(.failure, kind: "declined", "\(error)")
    case .incomplete: self.init(.failure, kind: "incomplete", "\(error)")
    case .peer: self.init(.failure, kind: "peer", "\(error)")
    case .kernel(let cause): self.init(Self.status(cause.errno), kind: "kernel", "\(error)")
    }
  }

  private static func classify(_ error: PredumpError) -> (ExitStatus, String) {
    switch error {
    case .targetGone: (.targetGone, "target-gone")
    case .unsuitableTarget: (.unsuitableTarget, "unsuitable-target")
    case .permission: (.notPermitted, "permission")
    case .unsupportedKernel: (.unsupportedKernel, "unsupported-kernel")
    case .imagesDirectory: (.unusableDirectory, "images-directory")
    case .outOfSpace: (.outOfSpace, "out-of-space")
    // What came over a link is damaged; here nothing is read that this program has not written.
    case .images(let cause) where cause.cause == nil && cause.kind != .misuse:
      (.damaged, cause.kind.rawValue)
    case .images(let cause): (status(cause.cause?.errno), "images")
    case .link: (.linkBroken, "link")
    case .notConverged: (.notConverged, "not-converged")
    case .interrupted: (.interrupted, "interrupted")
    case .freeze: (.failure, "freeze")
    case .command: (.commandFailed, "command")
    case .kernel(let cause): (status(cause.errno), "kernel")
    }
  }

  private static func status(_ errno: Errno?) -> ExitStatus {
    switch errno {
    case .some(.noSuchProcess): .targetGone
    case .some(.permissionDenied), .some(.notPermitted): .notPermitted
    case .some(.noSpace), .some(.diskQuotaExceeded): .outOfSpace
    case .some(.readOnlyFileSystem): .unusableDirectory
    default: .failure
    }
  }
}
