internal import Images
internal import Kernel

/// The shared memory objects that a process maps, found through its mappings.
///
/// Their data is read through the object, never through the process's page table: what this
/// process has not touched yet is data all the same.
enum SharedObjects {
  /// One object: its number, and the first VMA that maps it, of the first process that does.
  struct Object: Sendable {
    var id: UInt64
    var member = 0
    var vma: Int
    var linkName: String
  }

  /// Every object of `records` once, by number.
  static func list(_ records: [VMARecord]) -> [Object] { list(members: [records]) }

  /// Every object of several processes once, by number.
  static func list(members: [[VMARecord]]) -> [Object] {
    var objects: [UInt64: Object] = [:]
    for (member, records) in members.enumerated() {
      for (index, record) in records.enumerated() where record.sharedObjectID != 0 {
        if objects[record.sharedObjectID] != nil { continue }
        objects[record.sharedObjectID] = Object(
          id: record.sharedObjectID, member: member, vma: index,
          linkName: linkName(of: record.range))
      }
    }
    return objects.values.sorted { $0.id < $1.id }
  }

  /// The link in `/proc/PID` to what the VMA of exactly this range maps.
  static func linkName(of range: PageRange) -> String {
    "map_files/\(String(range.start, radix: 16))-\(String(range.end, radix: 16))"
  }

  /// Calls `body` for every run of pages of `file` that may hold data, by byte offset.
  static func forEachDataRun<Failure: Error>(
    in file: borrowing File, _ body: (PageRange) throws(Failure) -> Void
  ) throws(ScanFailure<Failure>) {
    var offset: UInt64 = 0
    while true {
      let next: Range<UInt64>?
      do throws(KernelError) { next = try file.data(from: offset) } catch { throw .kernel(error) }
      guard let data = next else { return }
      let start = data.lowerBound / pageBytes * pageBytes
      let end = (data.upperBound + pageBytes - 1) / pageBytes * pageBytes
      do throws(Failure) { try body(PageRange(start: start, end: end)) } catch {
        throw .body(error)
      }
      offset = end
    }
  }

  /// Reads whole pages of an object; what lies beyond its end reads as zeros.
  static func readPages(
    of file: borrowing File, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
  ) throws(KernelError) -> ProcessMemory.ReadResult {
    let count = try file.read(into: buffer, at: offset)
    if count < buffer.count {
      UnsafeMutableRawBufferPointer(rebasing: buffer[count...]).initializeMemory(
        as: UInt8.self, repeating: 0)
    }
    return .pages(buffer.count / Int(pageBytes))
  }
}
