/// A thread's place among all that read and write a disk (ioprio_set(2)).
public enum IOPriority: Sendable, Equatable, CustomStringConvertible {
  /// Only when nobody else wants the disk.
  case idle
  /// With the others; level 0 comes first, 7 last, and 4 is what threads have by default.
  case bestEffort(Int32)

  /// As the command line has it.
  public var description: String {
    switch self {
    case .idle: "idle"
    case .bestEffort(let level): "best-effort:\(level)"
    }
  }
}
