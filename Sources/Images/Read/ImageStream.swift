/// Whose pages a pagemap holds.
public enum ImageStream: Sendable, Hashable, Comparable {
  /// A process's; the addresses are its own.
  case process(pid: Int32)
  /// A shared memory object's; the addresses are byte offsets in it.
  case sharedObject(id: UInt64)

  /// The stream that a file name stands for; nil if the file is no pagemap.
  init?(pagemapName name: String) {
    guard name.hasSuffix(".img") else { return nil }
    let stem = name.dropLast(4)
    if stem.hasPrefix("pagemap-shmem-") {
      guard let id = UInt64(stem.dropFirst(14)) else { return nil }
      self = .sharedObject(id: id)
    } else if stem.hasPrefix("pagemap-") {
      guard let pid = Int32(stem.dropFirst(8)), pid > 0 else { return nil }
      self = .process(pid: pid)
    } else {
      return nil
    }
    // "+7" and "007" are numbers too, but no names that anybody writes.
    if pagemapName != name { return nil }
  }

  /// The pagemap's file name.
  public var pagemapName: String {
    switch self {
    case .process(let pid): ImageFormat.pagemapName(pid: pid)
    case .sharedObject(let id): ImageFormat.pagemapName(sharedObject: id)
    }
  }

  /// Processes come first.
  public static func < (left: ImageStream, right: ImageStream) -> Bool {
    switch (left, right) {
    case (.process(let left), .process(let right)): left < right
    case (.sharedObject(let left), .sharedObject(let right)): left < right
    case (.process, .sharedObject): true
    case (.sharedObject, .process): false
    }
  }
}
