import Foundation

/// What the kernel says of a process that a dump must have left alone.
struct ProcessState: Equatable {
  /// The letter of `State:`; nil if there is no such process.
  let letter: Character?
  /// Who traces it; 0 if nobody does.
  let tracer: Int32
  /// Whether a VMA is registered for write protection (`uw` in VmFlags).
  let isTracked: Bool

  init(of pid: Int32) {
    let status = Self.lines("/proc/\(pid)/status")
    func value(_ key: String) -> Substring? {
      status.first { $0.hasPrefix(key) }?.dropFirst(key.count).drop { $0 == "\t" || $0 == " " }
    }
    letter = value("State:")?.first
    tracer = value("TracerPid:").flatMap { Int32($0) } ?? 0
    isTracked = Self.lines("/proc/\(pid)/smaps").contains {
      $0.hasPrefix("VmFlags:") && $0.split(separator: " ").contains("uw")
    }
  }

  /// Whether it runs or sleeps, and nobody holds it.
  var isFree: Bool {
    let runs = letter.map { "SRD".contains($0) } ?? false
    return runs && tracer == 0 && !isTracked
  }

  /// A number of /proc/PID/status that is in kB, such as `VmPTE`; 0 if it is not there.
  static func kilobytes(_ key: String, of pid: Int32) -> Int {
    let line = lines("/proc/\(pid)/status").first { $0.hasPrefix(key + ":") } ?? ""
    return line.split(whereSeparator: { " \t".contains($0) }).compactMap { Int($0) }.first ?? 0
  }

  private static func lines(_ path: String) -> [Substring] {
    guard let data = FileManager.default.contents(atPath: path) else { return [] }
    return String(decoding: data, as: UTF8.self).split(separator: "\n")
  }
}
