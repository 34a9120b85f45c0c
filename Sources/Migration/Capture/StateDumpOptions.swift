/// What becomes of the process once CRIU has dumped what is not memory.
public enum Fate: Sendable, Equatable {
  /// It stays stopped, with its connections unlocked.
  case stopped
  /// It runs on.
  case running
  /// It is ended, once the images are complete.
  case killed
  /// This shell command runs while the process is held and its connections are locked. If it
  /// succeeds the process is ended; else, or if memdump dies, it runs on.
  case decided(by: String)

  var endsProcess: Bool {
    switch self {
    case .stopped, .running: false
    case .killed, .decided: true
    }
  }
}

/// How CRIU is kept from storing memory that the rounds have.
public enum MemoryOmission: String, Sendable, CaseIterable {
  /// `softDirty` if the kernel has that and nobody else uses it on these processes; else `lazy` if the
  /// process and this memdump's limits allow it; else `stream`.
  case automatic = "auto"
  /// `criu dump --lazy-pages`: CRIU takes hold of the pages, and is told at once that nobody wants
  /// them. It needs two descriptors for each MiB, and all processes of the tree in the rounds.
  case lazy
  /// `criu dump --track-mem --prev-images-dir`: CRIU takes pages that nobody wrote since the last round
  /// for its parent's, which claims to have them all. It takes the process's soft-dirty marks away:
  /// whoever else looks for them must dump the whole process anew.
  case softDirty = "soft-dirty"
  /// `criu dump --stream`: CRIU reads all memory, and we let go of it.
  case stream
}

/// What `StateDump` is to do.
public struct StateDumpOptions: Sendable {
  /// A dump's directory, whose last round left the process stopped.
  public var directory: String
  /// Which criu.
  public var criu = CRIUProgram()
  /// Further options for `criu dump`.
  public var arguments: [String] = []
  /// How memory is left out.
  public var omission = MemoryOmission.automatic
  /// The process's fate.
  public var fate = Fate.stopped
  /// Whether the images survive a power cut before anything becomes of the process.
  public var sync = true

  /// The defaults, for `directory`.
  public init(directory: String) { self.directory = directory }
}

/// What a dump of CRIU's part came to.
public struct StateDumpSummary: Sendable, Equatable {
  /// Where CRIU's images are.
  public var directory: String
  /// How memory was left out.
  public var omission: MemoryOmission
  /// From when CRIU was let loose on the process until its images were complete (ns).
  public var nanoseconds: UInt64
  /// Bytes of memory that CRIU dumped and nobody kept.
  public var droppedBytes: UInt64
  /// Bytes of all images that were kept.
  public var keptBytes: UInt64
}
