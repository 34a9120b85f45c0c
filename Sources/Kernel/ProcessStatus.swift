/// `/proc/PID/status` (or a thread's), field by field.
package struct ProcessStatus: Sendable {
  private let fields: [String: String]

  /// Parses `Name:\tvalue` lines.
  package init(parsing bytes: [UInt8]) {
    var fields: [String: String] = [:]
    for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
      guard let colon = line.firstIndex(of: ":") else { continue }
      let value = line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }
      fields[String(line[..<colon])] = String(value)
    }
    self.fields = fields
  }

  /// The command name.
  package var name: String { fields["Name"] ?? "?" }
  /// The process that this thread belongs to.
  package var threadGroup: Int32 { Int32(fields["Tgid"] ?? "") ?? 0 }
  /// Who traces it; 0 if nobody.
  package var tracer: Int32 { Int32(fields["TracerPid"] ?? "") ?? 0 }
  /// Its real, effective, saved and file-system user ids.
  package var userIDs: [UInt32] {
    (fields["Uid"] ?? "").split(separator: "\t").compactMap { UInt32($0) }
  }
  /// 0 none, 1 strict, 2 filter.
  package var seccompMode: Int { Int(fields["Seccomp"] ?? "") ?? 0 }
  /// Resident memory (bytes), 0 for kernel threads and zombies.
  package var residentBytes: UInt64 {
    let number = (fields["VmRSS"] ?? "").split(separator: " ").first ?? "0"
    return (UInt64(number) ?? 0) * 1024
  }
  /// The most memory that was resident at any time (bytes).
  package var peakResidentBytes: UInt64 {
    let number = (fields["VmHWM"] ?? "").split(separator: " ").first ?? "0"
    return (UInt64(number) ?? 0) * 1024
  }
  /// Anonymous memory in huge pages (bytes); in `smaps_rollup` only.
  package var hugePageBytes: UInt64 {
    let number = (fields["AnonHugePages"] ?? "").split(separator: " ").first ?? "0"
    return (UInt64(number) ?? 0) * 1024
  }
  /// Effective capabilities as the kernel's bit set.
  package var effectiveCapabilities: UInt64 { mask("CapEff") }
  /// Whether a signal waits that this thread does not block and has a handler for.
  package var hasHandledSignalPending: Bool {
    (mask("SigPnd") | mask("ShdPnd")) & ~mask("SigBlk") & mask("SigCgt") != 0
  }

  /// Whether a SIGSTOP waits to be taken by the process.
  package var hasStopPending: Bool { (mask("SigPnd") | mask("ShdPnd")) & (1 << 18) != 0 }

  private func mask(_ name: String) -> UInt64 { UInt64(fields[name] ?? "", radix: 16) ?? 0 }
}
