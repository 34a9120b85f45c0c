internal import Images
internal import Kernel

/// A way to make images out of arbitrary bytes. Whatever they are, the readers must neither crash,
/// nor hang, nor allocate more than a few MiB beyond what the files are long, and what the verifier
/// calls restorable must compose.
package enum FuzzTarget: String, CaseIterable, Sendable {
  /// `memdump-session.img` over a good chain.
  case session
  /// `memdump-PID.img` of the newest round of a good chain.
  case record
  /// The newest pagemap of a chain without records of ours.
  case pagemap
  /// One of the small images, or the shared object's pagemap, of such a chain: the first byte says
  /// which.
  case small
  /// Compressed blocks: their number and lengths, then their bytes.
  case blocks
  /// All files of a chain, one after the other.
  case chain
  /// A stream of rounds, as `receive` takes it.
  case rounds
  /// CRIU's images as they come in a migration.
  case state

  private static let smallFiles = [
    "round-002/mm-7.img", "round-002/inventory.img", "round-001/inventory.img",
    "round-001/pagemap-7.img", "round-002/pagemap-shmem-9.img", "round-002/stats-dump",
  ]

  /// Reads images that `bytes` make, in every way that there is.
  ///
  /// - Returns: whether they can be restored.
  @discardableResult package func run(_ bytes: UnsafeRawBufferPointer, in place: FuzzPlace?) -> Bool
  {
    guard let place else { return false }
    let input = [UInt8](bytes)
    switch self {
    case .session: place.set(place.good.merging([FuzzPlace.sessionName: input]) { $1 })
    case .record: place.set(place.good.merging(["round-002/memdump-7.img": input]) { $1 })
    case .pagemap:
      place.set(place.goodWithoutRecords.merging(["round-002/pagemap-7.img": input]) { $1 })
    case .small:
      let which = Self.smallFiles[Int(input.first ?? 0) % Self.smallFiles.count]
      place.set(place.goodWithoutRecords.merging([which: Array(input.dropFirst())]) { $1 })
    case .blocks: place.set(Self.blocks(input))
    case .chain: place.set(place.unpack(input))
    case .rounds: return FuzzStream.receiveRounds(input, in: place) { Self.read($0) }
    case .state: return FuzzStream.receiveState(input, in: place)
    }
    return Self.read(place.path)
  }

  /// Inputs that are good images.
  package func seeds(of place: FuzzPlace) -> [[UInt8]] {
    func good(_ name: String) -> [UInt8] { place.good[name] ?? [] }
    switch self {
    case .session: return [good(FuzzPlace.sessionName)]
    case .record: return [good("round-002/memdump-7.img"), good("round-001/memdump-7.img")]
    case .pagemap: return [good("round-002/pagemap-7.img"), good("round-001/pagemap-7.img")]
    case .small:
      return Self.smallFiles.enumerated().map { [UInt8($0.offset)] + good($0.element) }
    case .blocks:
      // Raw, zero, and a literal run with a match.
      return [
        [2, 0, 0, 0, 0, 16, 0] + Array(repeating: 7, count: 4096), [1, 0, 20, 0, 0x1f, 1, 1, 0],
      ]
    case .chain: return [place.pack(place.good), place.pack(place.goodWithoutRecords)]
    case .rounds: return [FuzzStream.roundSeed(place)]
    case .state: return [FuzzStream.stateSeed(place)]
    }
  }

  /// A round of plain CRIU's with one entry: how many blocks, pages in a block, their lengths.
  private static func blocks(_ input: [UInt8]) -> [String: [UInt8]] {
    let count = Int(input.first ?? 0) % 8 + 1
    let pagesPerBlock = UInt64(input.dropFirst().first ?? 0) % 4 + 1
    var rest = input.dropFirst(2)
    var sizes: [UInt64] = []
    for _ in 0..<count {
      let pair = rest.prefix(2)
      rest = rest.dropFirst(2)
      let size = pair.reversed().reduce(0) { $0 << 8 | UInt64($1) }
      sizes.append(min(size, pagesPerBlock * pageBytes))
    }
    let blocks =
      Wire.field(1, sizes.flatMap { Wire.varint($0) }) + Wire.field(2, sizes.reduce(0, +))
      + Wire.field(3, pagesPerBlock)
    let entry =
      Wire.field(1, 0x10000) + Wire.field(2, 0) + Wire.field(4, 4)
      + Wire.field(5, UInt64(count) * pagesPerBlock) + Wire.field(6, blocks)
    return [
      "round-001/pagemap-7.img": Wire.image(
        [0x5456_4319, 0x5608_4025], [Wire.field(1, 1), entry]),
      "round-001/pages-1.img": Array(rest),
      "round-001/inventory.img": Wire.image([0x5831_3116], [Wire.field(1, 3) + Wire.field(2, 1)]),
    ]
  }

  private struct Enough: Error {}

  /// Reads the chain at `path` in every way that there is.
  private static func read(_ path: String) -> Bool {
    let isSound = ChainVerifier.verify(path).verdict == .restorable
    guard let contents = try? ChainContents(path) else {
      precondition(!isSound, "restorable, but it cannot be opened")
      return false
    }
    for round in contents.rounds {
      for stream in round.streams {
        var count = 0
        try? contents.forEachEntry(of: stream.stream, in: round.name) { _ in count += 1 }
      }
    }
    _ = try? ChainSummary(path)
    guard let chain = try? ImageChain(path) else { return isSound }
    _ = try? chain.topRecord()
    for stream in contents.rounds.last?.streams ?? [] {
      do {
        var image = try ComposedImage(chain, stream: stream.stream)
        var runs = 0
        try image.forEachRun { _, _ in
          runs += 1
          // Each may be a MiB.
          if runs == 8 { throw Enough() }
        }
      } catch is Enough {
      } catch { precondition(!isSound, "restorable, and yet: \(error)") }
    }
    return isSound
  }
}
