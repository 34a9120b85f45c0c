internal import Images
internal import Predump

// The words that JSON has for the library's cases. They are stable: scripts compare them.

extension RoundKind {
  var name: String {
    switch self {
    case .live: "live"
    case .frozen: "frozen"
    }
  }
}

extension SessionOutcome {
  var name: String {
    switch self {
    case .running: "running"
    case .complete: "complete"
    case .completeOverBudget: "complete-over-budget"
    case .preDumpOnly: "pre-dump-only"
    case .notConverged: "not-converged"
    case .interrupted: "interrupted"
    case .targetGone: "target-gone"
    case .failed: "failed"
    }
  }
}

extension Verdict {
  var name: String {
    switch self {
    case .nextRound: "next-round"
    case .converged: "converged"
    case .stalled: "stalled"
    }
  }

  var reason: String? {
    switch self {
    case .nextRound: nil
    case .converged(let reason): reason.rawValue
    case .stalled(let reason): reason.rawValue
    }
  }
}

extension VMAKind {
  var name: String {
    switch self {
    case .anonymous: "anonymous"
    case .heap: "heap"
    case .stack: "stack"
    case .privateFile: "private-file"
    case .sharedFile: "shared-file"
    case .sharedAnonymous: "shared-anonymous"
    case .memfd: "memfd"
    case .sysvSharedMemory: "sysv-shm"
    case .hugetlb: "hugetlb"
    case .vdso: "vdso"
    case .vvar: "vvar"
    case .vsyscall: "vsyscall"
    case .aioRing: "aio-ring"
    case .ioUring: "io-uring"
    case .device: "device"
    case .secretMemory: "secret-memory"
    }
  }
}

extension VMATreatment {
  var name: String {
    switch self {
    case .tracked: "tracked"
    case .privatePagesEachRound: "private-pages-each-round"
    case .comparedInFreeze: "compared-in-freeze"
    case .wholeInFreeze: "whole-in-freeze"
    case .wholeEachRound: "whole-each-round"
    case .fromFile: "from-file"
    case .fromKernel: "from-kernel"
    case .unreadable: "unreadable"
    }
  }
}

extension PagemapFlags {
  /// The names that CRIU's tools have for the bits, joined as `crit show` does.
  var criuName: String {
    let known: [(PagemapFlags, String)] = [
      (.parent, "PE_PARENT"), (.lazy, "PE_LAZY"), (.present, "PE_PRESENT"),
      (.payloadAligned, "PE_PAYLOAD_ALIGNED"),
    ]
    return known.filter { contains($0.0) }.map(\.1).joined(separator: " | ")
  }
}
