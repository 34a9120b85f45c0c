internal import Kernel
internal import SystemPackage

/// The rounds that a directory's images are made of, from the newest to the oldest.
///
/// All of them lie in one directory, the session's: a `parent` link is followed only as far as
/// `../NAME`, and never through another link.
package struct ImageChain: ~Copyable {
  /// The most rounds that are followed.
  package static let depthLimit = 4096

  /// Where the rounds lie.
  let session: Directory
  /// Whether the session's directory was asked for, not one round's.
  package let isSession: Bool
  /// Directory names of the rounds, newest first.
  package private(set) var rounds: [String] = []
  /// Leftovers of dumpers that died, `NAME.partial`. Never read.
  package private(set) var partialNames: [String] = []
  /// Rounds of the session that the chain does not reach.
  package private(set) var strayRounds: [String] = []
  /// Why the chain could not be followed to its end; nil if it could.
  package private(set) var linkProblem: ImageError?

  /// Opens the chain at `path`: a session's directory, or one round's.
  ///
  /// - Throws: `.missingFile` if nothing at `path` looks like images. What is wrong with the links
  ///   is not thrown: see `linkProblem`.
  package init(_ path: String) throws(ImageError) {
    let directory = try onFile(path) { () throws(KernelError) in
      try Directory.open(path, followSymlink: true)
    }
    let names = try onFile(path) { () throws(KernelError) in try directory.names() }
    let roundNames = names.compactMap { RoundName($0) }.sorted()
    if let top = roundNames.last {
      self.init(session: directory, isSession: true, top: top.text)
      findOthers(names, roundNames.map(\.text))
    } else if names.contains(where: { ImageStream(pagemapName: $0) != nil }) {
      let place = try Self.place(of: directory)
      let session = try onFile(place.parent) { () throws(KernelError) in
        try Directory.open(place.parent, followSymlink: true)
      }
      self.init(session: session, isSession: false, top: place.name)
    } else if names.contains(ImageFormat.sessionName) {
      self.init(session: directory, isSession: true, top: nil)
      findOthers(names, [])
    } else {
      throw ImageError(
        .missingFile, file: path, "neither a session (round-001...) nor a round (pagemap-PID.img)")
    }
  }

  private init(session: consuming Directory, isSession: Bool, top: String?) {
    self.session = session
    self.isSession = isSession
    if let top { follow(from: top) }
  }

  /// Opens the directory of a round of this chain.
  func open(_ round: String) throws(ImageError) -> Directory {
    try onFile(session.join(round)) { () throws(KernelError) in try session.directory(round) }
  }

  /// The streams of a round, sorted.
  func streams(of round: String) throws(ImageError) -> [ImageStream] {
    let directory = try open(round)
    let names = try onFile(directory.path) { () throws(KernelError) in try directory.names() }
    return names.compactMap { ImageStream(pagemapName: $0) }.sorted()
  }

  private mutating func findOthers(_ names: [String], _ roundNames: [String]) {
    partialNames = names.filter { $0.hasSuffix(ImageFormat.partialSuffix) }
    let reached = Set(rounds)
    strayRounds = roundNames.filter { !reached.contains($0) }
  }

  private mutating func follow(from top: String) {
    var seen: Set<String> = []
    var next: String? = top
    do throws(ImageError) {
      while let name = next {
        let path = session.join(name)
        guard seen.insert(name).inserted else {
          throw ImageError(.parentLink, file: path, "the parents make a circle")
        }
        guard seen.count <= Self.depthLimit else {
          throw ImageError(.parentLink, file: path, "more than \(Self.depthLimit) rounds")
        }
        // Opened first: a parent that cannot be opened is a broken link, not a round.
        let directory = try open(name)
        rounds.append(name)
        next = try Self.parent(of: directory)
      }
    } catch {
      let isBroken = error.kind == .missingFile
      linkProblem =
        isBroken
        ? ImageError(.parentLink, file: error.file, "the parent is missing", cause: error.cause)
        : error
    }
  }

  /// The name that `parent` in `directory` leads to; nil if there is no link.
  static func parent(of directory: borrowing Directory) throws(ImageError) -> String? {
    let path = directory.join(ImageFormat.parentName)
    let target: String
    do throws(KernelError) {
      target = try directory.readSymlink(ImageFormat.parentName)
    } catch {
      if error.errno == .noSuchFileOrDirectory { return nil }
      throw ImageError(
        .parentLink, file: path, "this is no readable link: \(error.errno.description)",
        cause: error)
    }
    guard target.hasPrefix("../") else {
      throw ImageError(
        .parentLink, file: path, "the link leads to \(target), not to a sibling (../NAME)")
    }
    // CRIU keeps the slashes that people type behind a name.
    var name = target.dropFirst(3)
    while name.hasSuffix("/") { name.removeLast() }
    guard !name.isEmpty, name != ".", name != "..", !name.contains("/") else {
      throw ImageError(
        .parentLink, file: path, "the link leads to \(target), not to a sibling (../NAME)")
    }
    guard !name.hasSuffix(ImageFormat.partialSuffix) else {
      throw ImageError(.parentLink, file: path, "the parent \(name) was never finished")
    }
    return String(name)
  }

  /// Where an open directory lies, whatever path it was opened by.
  private static func place(of directory: borrowing Directory) throws(ImageError)
    -> (parent: String, name: String)
  {
    let number = "\(directory.descriptor.number)"
    let path = try onFile(directory.path) { () throws(KernelError) in
      try Directory.open("/proc/self/fd", followSymlink: true).readSymlink(number)
    }
    guard let slash = path.lastIndex(of: "/"), path.hasPrefix("/"), path != "/" else {
      throw ImageError(.missingFile, file: directory.path, "the directory has no place of its own")
    }
    let parent = path[..<slash]
    return (parent.isEmpty ? "/" : String(parent), String(path[path.index(after: slash)...]))
  }
}

/// A round's directory name, `round-NNN`, in the order of its number.
struct RoundName: Comparable {
  let text: String
  let number: UInt64

  /// The directory name of round `number`.
  static func text(_ number: Int) -> String {
    let digits = String(number)
    return "round-" + String(repeating: "0", count: max(0, 3 - digits.count)) + digits
  }

  init?(_ text: String) {
    guard text.hasPrefix("round-") else { return nil }
    let digits = text.dropFirst(6)
    guard !digits.isEmpty, digits.allSatisfy({ $0.isASCII && $0.isNumber }),
      let number = UInt64(digits)
    else { return nil }
    self.text = text
    self.number = number
  }

  static func < (left: RoundName, right: RoundName) -> Bool {
    (left.number, left.text) < (right.number, right.text)
  }
}
