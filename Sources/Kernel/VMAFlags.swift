/// The `VmFlags:` line of `/proc/PID/smaps` (proc_pid_smaps(5)): two letters a flag.
package struct VMAFlags: OptionSet, Sendable, Hashable {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }

  package static let growsDown = VMAFlags(rawValue: 1 << 0)
  package static let pureFrameNumbers = VMAFlags(rawValue: 1 << 1)
  package static let locked = VMAFlags(rawValue: 1 << 2)
  package static let deviceMemory = VMAFlags(rawValue: 1 << 3)
  package static let sequentialRead = VMAFlags(rawValue: 1 << 4)
  package static let randomRead = VMAFlags(rawValue: 1 << 5)
  package static let dontFork = VMAFlags(rawValue: 1 << 6)
  package static let noReserve = VMAFlags(rawValue: 1 << 7)
  package static let hugetlb = VMAFlags(rawValue: 1 << 8)
  package static let wipeOnFork = VMAFlags(rawValue: 1 << 9)
  package static let dontDump = VMAFlags(rawValue: 1 << 10)
  package static let hugePages = VMAFlags(rawValue: 1 << 11)
  package static let noHugePages = VMAFlags(rawValue: 1 << 12)
  package static let mergeable = VMAFlags(rawValue: 1 << 13)
  package static let userfaultMissing = VMAFlags(rawValue: 1 << 14)
  package static let userfaultProtect = VMAFlags(rawValue: 1 << 15)
  package static let userfaultMinor = VMAFlags(rawValue: 1 << 16)
  package static let softDirty = VMAFlags(rawValue: 1 << 17)

  private static let letters: [String: VMAFlags] = [
    "gd": .growsDown, "pf": .pureFrameNumbers, "lo": .locked, "io": .deviceMemory,
    "sr": .sequentialRead, "rr": .randomRead, "dc": .dontFork, "nr": .noReserve, "ht": .hugetlb,
    "wf": .wipeOnFork, "dd": .dontDump, "hg": .hugePages, "nh": .noHugePages, "mg": .mergeable,
    "um": .userfaultMissing, "uw": .userfaultProtect, "ui": .userfaultMinor, "sd": .softDirty,
  ]

  /// Parses all of `/proc/PID/smaps`: the flags of each VMA by its start and end.
  package static func parse(smaps bytes: [UInt8]) -> [PageRange: VMAFlags] {
    var hugePageBytes: UInt64 = 0
    return parse(smaps: bytes, hugePageBytes: &hugePageBytes)
  }

  /// As above, and adds the anonymous memory in transparent huge pages to `hugePageBytes`.
  package static func parse(smaps bytes: [UInt8], hugePageBytes: inout UInt64)
    -> [PageRange: VMAFlags]
  {
    var result: [PageRange: VMAFlags] = [:]
    var current: PageRange?
    for line in bytes.split(separator: 0x0a) {
      // A header begins with a hexadecimal digit in lower case, all else with a capital: most of
      // the many lines are passed over by a look at one byte.
      guard let first = line.first else { continue }
      if first == UInt8(ascii: "V"), line.starts(with: "VmFlags:".utf8) {
        guard let range = current else { continue }
        var flags: VMAFlags = []
        for word in line.dropFirst(8).split(separator: 0x20) {
          if let flag = letters[String(decoding: word, as: UTF8.self)] { flags.insert(flag) }
        }
        result[range] = flags
      } else if first == UInt8(ascii: "A"), line.starts(with: "AnonHugePages:".utf8) {
        let digits = line.filter { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
        hugePageBytes += (UInt64(String(decoding: digits, as: UTF8.self)) ?? 0) << 10
      } else if first < UInt8(ascii: "A") || first > UInt8(ascii: "Z") {
        if let range = header(line) { current = range }
      }
    }
    return result
  }

  /// The range of a line such as `7f00-7fff rw-p ...`; nil for `Name: value` lines.
  private static func header(_ line: ArraySlice<UInt8>) -> PageRange? {
    let address = Substring(decoding: line.prefix { $0 != 0x20 }, as: UTF8.self)
    guard let dash = address.firstIndex(of: "-"),
      let start = UInt64(address[..<dash], radix: 16),
      let end = UInt64(address[address.index(after: dash)...], radix: 16)
    else { return nil }
    return PageRange(start: start, end: end)
  }
}
