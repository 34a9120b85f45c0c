internal import CFuzzer
internal import Glibc
internal import ImageFuzzing

/// `MEMDUMP_FUZZ_TARGET=NAME fuzz [libFuzzer's arguments]`, or `fuzz seeds DIRECTORY`; see
/// scripts/fuzz.sh. The target is no argument: libFuzzer runs itself again with its own alone.
@main enum Fuzz {
  private static let target = getenv("MEMDUMP_FUZZ_TARGET").flatMap {
    FuzzTarget(rawValue: String(cString: $0))
  }
  private static let place: FuzzPlace? = try? FuzzPlace(
    below: getenv("MEMDUMP_FUZZ_PLACE").map { String(cString: $0) } ?? "/dev/shm")

  static func main() {
    let arguments = CommandLine.arguments
    guard let place else { fail("no place for files in /dev/shm") }
    if arguments.count == 3, arguments[1] == "seeds" {
      do { try writeSeeds(place, to: arguments[2]) } catch { fail("\(error)") }
      return
    }
    guard target != nil else {
      fail("MEMDUMP_FUZZ_TARGET: \(FuzzTarget.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    // The C strings live as long as the process.
    var count = CInt(arguments.count)
    let words = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(
      capacity: arguments.count + 1)
    for (index, word) in arguments.enumerated() { words[index] = strdup(word) }
    words[arguments.count] = nil
    var pointer: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = words
    let status = LLVMFuzzerRunDriver(&count, &pointer) { bytes, count in
      Fuzz.target?.run(UnsafeRawBufferPointer(start: bytes, count: count), in: Fuzz.place)
      return 0
    }
    place.remove()
    exit(status)
  }

  private static func writeSeeds(_ place: FuzzPlace, to directory: String) throws {
    for target in FuzzTarget.allCases {
      mkdir("\(directory)/\(target.rawValue)", 0o755)
      for (index, seed) in target.seeds(of: place).enumerated() {
        try FuzzPlace.write(seed, to: "\(directory)/\(target.rawValue)/seed-\(index)")
      }
    }
    place.remove()
  }

  private static func fail(_ words: String) -> Never {
    print("fuzz: \(words)")
    exit(64)
  }
}
