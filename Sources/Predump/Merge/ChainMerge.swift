public import Images
internal import Kernel
internal import SystemPackage

/// Makes one directory of a chain of rounds: every page stored, no parent.
public enum ChainMerge {
  /// What to merge, and into what.
  public struct Options: Sendable {
    /// A dump's directory, or one of its rounds.
    public var source: String
    /// The directory to make; it must not exist.
    public var output: String
    /// How pages are to be stored; nil: as the newest round has them.
    public var compression: PageCompression?
    /// Threads that compress.
    public var encoders = 2
    /// Whether the result survives a power cut once `run` returned.
    public var sync = true

    /// Merges `source` into `output`, stored as it was.
    public init(source: String, output: String) {
      self.source = source
      self.output = output
    }
  }

  /// What was merged.
  public struct Summary: Sendable {
    /// Rounds of the chain.
    public var rounds: Int
    /// What the new directory holds.
    public var totals: RoundTotals
    /// Whether it can be restored: the chain's newest round is a frozen one.
    public var isRestorable: Bool
  }

  /// Why nothing was merged.
  public enum Failure: Error {
    /// The chain is damaged, or there is none.
    case unsound(ChainReport)
    /// The chain was sound, and then could not be read, or its bytes were other ones.
    case reading(ImageError)
    /// The new directory could not be written, or the caller asked to stop.
    case writing(PredumpError)
  }

  /// Merges in one pass, in bounded memory.
  ///
  /// The whole chain is verified first. Every block is compared with its digest once more when it
  /// is read, so that what is written is what was dumped. The new directory has another name until
  /// it is complete.
  ///
  /// - Throws: `Failure`; nothing is left of the new directory then.
  public static func run(_ options: Options, cancellation: Cancellation = Cancellation())
    throws(Failure) -> Summary
  {
    let report = ChainVerifier.verify(options.source)
    guard [.restorable, .consistentNotRestorable].contains(report.verdict) else {
      throw .unsound(report)
    }
    let source: Source
    do throws(ImageError) { source = try Source(options.source) } catch { throw .reading(error) }
    let totals = try write(source, options, cancellation)
    return Summary(
      rounds: report.rounds.count, totals: totals,
      // What is merged is one round, for itself.
      isRestorable: report.rounds.last?.isFrozen ?? (report.verdict == .restorable))
  }

  /// What is merged.
  private struct Source: ~Copyable {
    let chain: ImageChain
    let record: RoundRecord
    let members: [RoundMember]
    let streams: [ImageStream]

    init(_ path: String) throws(ImageError) {
      let chain = try ImageChain(path)
      let record = try chain.topRecord()
      let members = try chain.topMembers(record)
      let target = ImageStream.process(pid: record.pid)
      let streams = [target] + (try chain.topStreams().filter { $0 != target })
      self.chain = chain
      self.record = record
      self.members = members
      self.streams = streams
    }
  }

  private static func write(
    _ source: borrowing Source, _ options: Options, _ cancellation: Cancellation
  ) throws(Failure) -> RoundTotals {
    let compression = options.compression ?? source.record.compression
    let pipeline: ChunkPipeline
    do throws(KernelError) {
      pipeline = try ChunkPipeline(
        compression: compression, encoders: options.encoders, yields: false)
    } catch { throw .writing(.kernel(error)) }
    let writer = try writer(options, pid: source.record.pid, compression)
    do throws(RoundFailure) {
      let written = try pipeline.write(with: writer) { () throws(RoundFailure) in
        for stream in source.streams {
          begin(stream, pipeline, target: source.record.pid)
          try copy(stream, of: source.chain, pipeline, compression, cancellation)
        }
      }
      return try commit(written, source.record, source.members)
    } catch { throw explain(error) }
  }

  private static func writer(
    _ options: Options, pid: Int32, _ compression: PageCompression
  ) throws(Failure) -> RoundWriter {
    let (parent, name) = ImagesDirectory.split(options.output)
    let place: Directory
    do throws(KernelError) {
      place = try emptyPlace(for: name, in: parent)
    } catch { throw .writing(unusable(options.output, error)) }
    do throws(ImageError) {
      return try RoundWriter(
        in: place, name: name, pid: pid, parentName: nil, compression: compression,
        sync: options.sync)
    } catch {
      guard let cause = error.cause else { throw .writing(PredumpError(error)) }
      throw .writing(unusable(options.output, cause))
    }
  }

  /// Opens the directory `path`, where `name` is to be made.
  private static func emptyPlace(for name: String, in path: String) throws(KernelError) -> Directory
  {
    let place = try Directory.open(path, followSymlink: true)
    let names = try place.names()
    if names.contains(SessionRecord.fileName) {
      throw KernelError(call: "mkdir", subject: name, errno: .notPermitted)
    }
    if names.contains(name) {
      throw KernelError(call: "mkdir", subject: name, errno: .fileExists)
    }
    return place
  }

  private static func unusable(_ path: String, _ error: KernelError) -> PredumpError {
    let reason =
      switch error.errno {
      case .fileExists: "it (or \(path).partial) exists already; name a new directory"
      case .noSuchFileOrDirectory: "its parent directory does not exist; create that first"
      case .notPermitted:
        "it would lie among the rounds of a dump, or its parent may not be written; name a "
          + "directory elsewhere"
      default: "\(error.call): \(error.errno.description)"
      }
    return .imagesDirectory(path: path, reason: reason)
  }

  private static func begin(_ stream: ImageStream, _ pipeline: ChunkPipeline, target: Int32) {
    switch stream {
    case .process(let pid): if pid != target { pipeline.beginProcess(pid) }
    case .sharedObject(let id): pipeline.beginSharedObject(id)
    }
  }

  private static func copy(
    _ stream: ImageStream, of chain: borrowing ImageChain, _ pipeline: ChunkPipeline,
    _ compression: PageCompression, _ cancellation: Cancellation
  ) throws(RoundFailure) {
    var gatherer = RunGatherer(
      into: RoundCopier(pipeline: pipeline, cancellation: cancellation),
      blockPages: compression.blockPages)
    var image: ComposedImage
    do throws(ImageError) {
      image = try ComposedImage(chain, stream: stream, verifying: true)
    } catch { throw .other(.images(error)) }
    do {
      try image.forEachFlaggedRun { (range, flags, bytes) in
        try gatherer.add(range, flags, bytes)
      }
      try gatherer.finish()
    } catch let error as ImageError {
      throw .other(.images(error))
    } catch let error as CopyFailure {
      throw .copy(error)
    } catch {
      throw .copy(.pipeline)
    }
  }

  private static func commit(
    _ writer: consuming RoundWriter, _ record: RoundRecord, _ members: [RoundMember]
  ) throws(RoundFailure) -> RoundTotals {
    var members = members
    for index in members.indices {
      members[index].since = 1
      for vma in members[index].addressSpace.vmas.indices {
        members[index].addressSpace.vmas[vma].pagesStored +=
          members[index].addressSpace.vmas[vma].pagesFromParent
        members[index].addressSpace.vmas[vma].pagesFromParent = 0
      }
    }
    var description = RoundDescription(
      index: 1, kind: record.kind, members: members, statistics: record.statistics,
      uptimeMicroseconds: record.uptimeMicroseconds, startedAt: record.startedAt)
    description.includesDescendants = record.includesDescendants
    do throws(ImageError) { return try writer.commit(description) } catch { throw .images(error) }
  }

  private static func explain(_ failure: RoundFailure) -> Failure {
    switch failure {
    case .other(.images(let error)): .reading(error)
    case .other(let error): .writing(error)
    case .images(let error): .writing(PredumpError(error))
    case .copy(.interrupted): .writing(.interrupted)
    case .kernel(let error), .copy(.kernel(let error)): .writing(.kernel(error))
    case .copy, .freeze:
      .writing(.kernel(KernelError(call: "write", subject: "merge", errno: .ioError)))
    }
  }
}
