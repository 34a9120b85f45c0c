internal import Kernel

/// Who fills the memory of a restored process.
public enum MemoryFilling: String, Sendable, CaseIterable {
  /// `memdump` if the kernel has what it takes, else `criu`.
  case automatic = "auto"
  /// memdump, with all processors, from the rounds as they are, before the process runs. CRIU sees a
  /// lazy restore (`--lazy-pages`), of which we are the daemon.
  case memdump
  /// `criu restore`, with one; from the rounds, or, if it does not read LZ4, from a plain copy.
  case criu
}

/// What `Restore` is to do.
public struct RestoreOptions: Sendable {
  /// A dump's directory, with CRIU's images in `criu`.
  public var directory: String
  /// Which criu.
  public var criu = CRIUProgram()
  /// Further options for `criu restore`.
  public var arguments: [String] = []
  /// Who fills memory.
  public var filling = MemoryFilling.automatic
  /// Whether the processes run before their memory is there, which memdump then fills. They are killed
  /// if that fails, or if this process dies meanwhile.
  public var isLazy = false
  /// Whether `run` checks the images first, every byte of them.
  public var checks = true
  /// Threads that decode and fill.
  public var workers: Int

  /// The defaults, for `directory`.
  public init(directory: String) {
    self.directory = directory
    workers = Processors.allowedCount
  }
}

/// What a restore came to.
public struct RestoreSummary: Sendable, Equatable {
  /// The restored root process, as CRIU names it; nil if an option had CRIU tell it elsewhere.
  public var pid: Int32?
  /// Pages that had to be unpacked first, because this CRIU does not read LZ4.
  public var unpackedPages: UInt64 = 0
  /// Pages that memdump filled, or is to fill.
  public var filledPages: UInt64 = 0
  /// How long the check took (ns).
  public var checkNanoseconds: UInt64 = 0
  /// How long unpacking and preparing took (ns).
  public var prepareNanoseconds: UInt64 = 0
  /// Pages that a thread waited for, once it ran.
  public var waitedPages: UInt64 = 0
  /// How long filling memory took (ns); part of `criuNanoseconds` unless the process ran meanwhile.
  public var fillNanoseconds: UInt64 = 0
  /// How long `criu restore` took from when it had its images (ns).
  public var criuNanoseconds: UInt64 = 0
}
