internal import Images
internal import Kernel
internal import SystemPackage

/// Whether the images may find room.
enum DestinationCheck {
  /// With less free space than this (bytes) not even the records of a small process fit.
  private static let leastBytes: UInt64 = 1 << 20
  /// With less than this part of the resident memory the images cannot fit: LZ4 makes at best
  /// 1/255 of a page, and no memory that was measured came near 1/64.
  private static let leastPart: UInt64 = 64

  /// Compares the free space at `path`, or where it is to be created, with `residentBytes`.
  static func run(path: String, residentBytes: UInt64) -> GroundFinding {
    let (id, title) = ("destination.space", "free space for the images")
    let free: UInt64
    do throws(KernelError) { free = try freeBytes(path) } catch {
      let reason =
        error.errno == .noSuchFileOrDirectory
        ? "its parent directory does not exist; create that first" : "\(error)"
      return .missing(
        id, title, reason, remedy: "choose a directory whose parent exists and can be read",
        failure: .imagesDirectory(path: path, reason: reason))
    }
    let detail = "\(byteText(free)) free, \(byteText(residentBytes)) resident in the process"
    if free < max(leastBytes, residentBytes / leastPart) {
      let full = KernelError(call: "statvfs", subject: path, errno: .noSpace)
      return .missing(
        id, title, detail, remedy: "free some space or choose another directory",
        failure: .outOfSpace(ImageError(full, file: path)))
    }
    if free < residentBytes {
      return .warning(
        id, title, "\(detail): if it does not compress well, the images will not fit",
        remedy: "free some space or choose another directory")
    }
    return .ok(id, title, detail)
  }

  private static func freeBytes(_ path: String) throws(KernelError) -> UInt64 {
    do throws(KernelError) {
      return try Directory.open(path, followSymlink: true).freeBytes()
    } catch {
      if error.errno != .noSuchFileOrDirectory { throw error }
    }
    return try Directory.open(parent(of: path), followSymlink: true).freeBytes()
  }

  private static func parent(of path: String) -> String {
    let parent = FilePath(path).removingLastComponent()
    return parent.isEmpty ? "." : parent.string
  }
}

/// A number of bytes for people, such as `1.5 GiB`.
func byteText(_ bytes: UInt64) -> String {
  if bytes < 1024 { return "\(bytes) bytes" }
  var value = Double(bytes)
  var unit = ""
  for name in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] where value >= 1024 || unit.isEmpty {
    value /= 1024
    unit = name
  }
  let tenths = Int((value * 10).rounded())
  return "\(tenths / 10).\(tenths % 10) \(unit)"
}
