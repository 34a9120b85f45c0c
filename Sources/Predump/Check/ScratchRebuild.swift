internal import Images
internal import Kernel
internal import SystemPackage
internal import Tracee

/// Builds the dumped address space anew in a scratch process.
public enum ScratchRebuild {
  /// Makes a process, for each that was dumped one after the other, whose VMAs have the addresses and protections of the dumped one, fills it from
  /// the chain in `directory`, reads it back, and compares. The scratch process never runs an
  /// instruction of the dumped program, and is gone afterwards. It takes as much memory as the dump
  /// holds.
  ///
  /// - Parameter pid: also compares with this live process, which is frozen meanwhile.
  /// - Throws: `PredumpError.images` if the chain cannot be read, `.kernel` if the scratch process
  ///   cannot be built.
  public static func run(directory: String, comparingWith pid: Int32?) throws(PredumpError)
    -> MemoryComparison
  {
    var result: MemoryComparison
    do {
      // The scratch process belongs to the OS thread that makes it.
      result = try OSThread.run(name: "memdump-rebuild") { try rebuild(directory) }.get()
    } catch { throw PredumpError(comparing: pid ?? 0, error) }
    if let pid { result.merge(try LiveComparison.run(directory: directory, pid: pid)) }
    return result
  }

  private static func rebuild(_ directory: String) throws -> MemoryComparison {
    let chain = try ImageChain(directory)
    var result = MemoryComparison()
    for (index, member) in try chain.topRecord().members.enumerated() {
      let prefix = index == 0 ? "" : "process \(member.target.pid) (\(member.target.command)): "
      result.merge(try rebuild(member, chain), prefix: prefix)
      result.processesCompared += 1
    }
    return result
  }

  private static func rebuild(_ member: RoundRecord.Member, _ chain: borrowing ImageChain) throws
    -> MemoryComparison
  {
    let vmas = member.vmas.filter { isRebuilt($0) }
    // Descriptors first: the scratch process inherits them.
    let files = try BackingFiles(vmas, chain)
    let scratch = try ScratchProcess(avoiding: vmas.map(\.range))
    for vma in vmas {
      let backing = files.backing(of: vma)
      try scratch.map(
        vma.range, isShared: vma.sharedObjectID != 0, descriptor: backing, offset: vma.fileOffset)
    }
    var image = try ComposedImage(chain, stream: .process(pid: member.target.pid))
    try image.forEachRun { range, bytes in try scratch.memory.write(bytes, at: range.start) }
    for vma in vmas { try scratch.protect(vma.range, vma.protection) }

    var comparer = try MemoryComparer(TargetProcess(pid: scratch.pid))
    try comparer.compareLayout(vmas, without: scratch.ownRange)
    try comparer.comparePages(chain, pid: member.target.pid, vmas: vmas)
    for object in SharedObjects.list(vmas) { try comparer.compareObject(chain, object, vmas: vmas) }
    return comparer.result
  }

  /// What the kernel gives every process anew, and what nobody could read, is not rebuilt.
  private static func isRebuilt(_ vma: VMARecord) -> Bool {
    vma.treatment != .fromKernel && vma.treatment != .unreadable
  }
}

/// The files and objects behind a dump's VMAs, open for a scratch process.
private struct BackingFiles: ~Copyable {
  private var files: [String: OpenFile] = [:]
  private var objects: [UInt64: OpenFile] = [:]

  private final class OpenFile {
    let file: File
    init(_ file: consuming File) { self.file = file }
  }

  /// Opens each mapped file that still exists, and makes each shared object anew.
  init(_ vmas: [VMARecord], _ chain: borrowing ImageChain) throws {
    for vma in vmas {
      if vma.sharedObjectID != 0 {
        if objects[vma.sharedObjectID] == nil {
          objects[vma.sharedObjectID] = OpenFile(try Self.object(vma.sharedObjectID, chain))
        }
        let end = vma.fileOffset + vma.range.byteCount
        if let object = objects[vma.sharedObjectID], try object.file.byteCount() < end {
          try object.file.resize(to: end)
        }
      } else if vma.kind == .privateFile || vma.kind == .sharedFile, files[vma.path] == nil {
        // Gone or replaced: its VMAs then hold the image's pages alone.
        if let file = try? File.open(vma.path) { files[vma.path] = OpenFile(file) }
      }
    }
  }

  /// The descriptor to map for `vma`; -1 for anonymous memory.
  func backing(of vma: VMARecord) -> CInt {
    if vma.sharedObjectID != 0 { return objects[vma.sharedObjectID]?.file.descriptor.number ?? -1 }
    guard vma.kind == .privateFile || vma.kind == .sharedFile else { return -1 }
    return files[vma.path]?.file.descriptor.number ?? -1
  }

  private static func object(_ id: UInt64, _ chain: borrowing ImageChain) throws -> File {
    let file = try File.anonymous(name: "memdump-object-\(id)")
    var image = try ComposedImage(chain, stream: .sharedObject(id: id))
    try image.forEachRun { range, bytes in try file.write(bytes, at: range.start) }
    return file
  }
}
