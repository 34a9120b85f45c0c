public import Kernel

/// What one round of a chain says of itself.
public struct RoundContents: Sendable {
  /// What a pagemap has.
  public struct Stream: Sendable {
    /// Whose pages they are.
    public let stream: ImageStream
    /// Name of the file with their bytes.
    public internal(set) var pagesName = ""
    /// Entries of the pagemap.
    public internal(set) var entryCount: UInt64 = 0
    /// Pages whose bytes are in this round.
    public internal(set) var pagesStored: UInt64 = 0
    /// Of those, pages in blocks that take no bytes.
    public internal(set) var pagesZero: UInt64 = 0
    /// Pages that the round takes from its parent.
    public internal(set) var pagesFromParent: UInt64 = 0
    /// Bytes in the pages file, padding included.
    public internal(set) var payloadBytes: UInt64 = 0

    init(_ stream: ImageStream) { self.stream = stream }
  }

  /// A VMA of images that memdump did not write.
  public struct Area: Sendable {
    /// Where it lies.
    public let range: PageRange
    /// MAP_* as `mmap` takes them.
    public let mapFlags: UInt32
    /// CRIU's VMA_AREA_* bits (criu: image.h).
    public let status: UInt32
    /// Which `pagemap-shmem-ID.img` has the object's pages; 0 if none.
    public let sharedObjectID: UInt64
    /// Pages stored in this round.
    public internal(set) var pagesStored: UInt64 = 0
    /// Pages that this round takes from its parent.
    public internal(set) var pagesFromParent: UInt64 = 0
  }

  /// Directory name.
  public let name: String
  /// memdump's own record; nil in images of CRIU's.
  public internal(set) var record: RoundRecord?
  /// `img_version` of the inventory; nil without one.
  public internal(set) var imageVersion: UInt32?
  /// The pagemaps, processes first.
  public internal(set) var streams: [Stream] = []
  /// The VMAs by CRIU's `mm-PID.img`, if there is no record of ours.
  public internal(set) var areas: [Area] = []

  /// Reads a round; what cannot be read goes to `problems`.
  init(
    name: String, in directory: borrowing Directory, streams: [ImageStream],
    problems: inout [ImageError]
  ) {
    self.name = name
    do throws(ImageError) { imageVersion = try Inventory.read(in: directory).version } catch {
      if error.kind != .missingFile { problems.append(error) }
    }
    do throws(ImageError) { record = try RoundRecordReader.find(in: directory) } catch {
      problems.append(error)
    }
    if record == nil {
      for stream in streams {
        if case .process(let pid) = stream { readAreas(pid, directory, &problems) }
      }
    }
    for stream in streams {
      do throws(ImageError) { self.streams.append(try count(stream, directory)) } catch {
        problems.append(error)
      }
    }
  }

  /// CRIU's list of VMAs.
  private mutating func readAreas(
    _ pid: Int32, _ directory: borrowing Directory, _ problems: inout [ImageError]
  ) {
    do throws(ImageError) {
      areas += try MappedArea.readAll(pid: pid, in: directory).map {
        Area(
          range: $0.range, mapFlags: $0.mapFlags, status: $0.status,
          sharedObjectID: $0.sharedObjectID)
      }
    } catch {
      if error.kind != .missingFile { problems.append(error) }
    }
  }

  private mutating func count(_ stream: ImageStream, _ directory: borrowing Directory)
    throws(ImageError) -> Stream
  {
    var reader = try PagemapReader(stream.pagemapName, in: directory)
    var totals = Stream(stream)
    totals.pagesName = ImageFormat.pagesName(reader.pagesID)
    var area = 0
    while try reader.advance() {
      totals.add(reader.entry)
      if case .process = stream { add(reader.entry, from: &area) }
    }
    totals.payloadBytes = reader.payloadEnd
    return totals
  }

  /// Counts the pages of `entry` in their VMAs. Entries ascend, and so does `first`.
  private mutating func add(_ entry: PagemapEntry, from first: inout Int) {
    while first < areas.count && areas[first].range.end <= entry.range.start { first += 1 }
    var index = first
    while index < areas.count && areas[index].range.start < entry.range.end {
      let pages = areas[index].range.intersection(entry.range).pageCount
      if entry.flags.contains(.present) { areas[index].pagesStored += pages }
      if entry.flags.contains(.parent) { areas[index].pagesFromParent += pages }
      index += 1
    }
  }
}

extension RoundContents.Stream {
  fileprivate mutating func add(_ entry: PagemapEntry) {
    entryCount += 1
    if entry.flags.contains(.parent) { pagesFromParent += entry.range.pageCount }
    guard entry.flags.contains(.present) else { return }
    pagesStored += entry.range.pageCount
    for (index, size) in entry.blockSizes.enumerated() where size == 0 {
      pagesZero += UInt64(entry.decodedBytes(ofBlock: index)) / pageBytes
    }
  }
}
