internal import Kernel
internal import SystemPackage

/// An item of the report, and the error that a dump would end with because of it.
struct GroundFinding: Sendable {
  var item: CheckReport.Item
  /// Set exactly if the item is missing.
  var failure: PredumpError?

  /// All is well.
  static func ok(_ id: String, _ title: String, _ detail: String) -> GroundFinding {
    GroundFinding(item: CheckReport.Item(id: id, title: title, status: .ok, detail: detail))
  }

  /// A dump works, with a limit.
  static func warning(_ id: String, _ title: String, _ detail: String, remedy: String)
    -> GroundFinding
  {
    GroundFinding(
      item: CheckReport.Item(
        id: id, title: title, status: .warning, detail: detail, remedy: remedy))
  }

  /// A dump cannot work, and fails with `failure`.
  static func missing(
    _ id: String, _ title: String, _ detail: String, remedy: String, failure: PredumpError
  ) -> GroundFinding {
    GroundFinding(
      item: CheckReport.Item(
        id: id, title: title, status: .missing, detail: detail, remedy: remedy),
      failure: failure)
  }

  /// The kernel lacks something.
  static func unsupported(_ id: String, _ title: String, _ detail: String, remedy: String)
    -> GroundFinding
  {
    missing(
      id, title, detail, remedy: remedy,
      failure: .unsupportedKernel("\(title): \(detail); \(remedy)"))
  }

  /// A right is missing.
  static func forbidden(_ id: String, _ title: String, _ detail: String, remedy: String)
    -> GroundFinding
  {
    missing(
      id, title, detail, remedy: remedy, failure: .permission("\(title): \(detail); \(remedy)"))
  }

  /// The target cannot be dumped.
  static func unsuitable(
    _ id: String, _ title: String, _ detail: String, remedy: String, pid: Int32
  ) -> GroundFinding {
    let advice = remedy.isEmpty ? "" : "; \(remedy)"
    return missing(
      id, title, detail, remedy: remedy,
      failure: .unsuitableTarget(pid: pid, reason: detail + advice))
  }
}

extension KernelError {
  /// Whether a right is missing, and not a thing.
  var isPermission: Bool { errno == .notPermitted || errno == .permissionDenied }
  /// Whether memdump itself has too little of something; the kernel is not to blame.
  var isLack: Bool {
    [.noMemory, .tooManyOpenFiles, .tooManyOpenFilesInSystem].contains(errno)
  }
}
