/// What a check of a chain found.
public struct ChainReport: Sendable, Equatable, Codable {
  /// The outcome in one word.
  public enum Verdict: String, Sendable, Codable {
    /// The chain holds all of the process's memory as it was at one moment, and its dump came to its
    /// end.
    case restorable
    /// The chain is sound, but its newest round was taken from the running process, or its dump
    /// failed after the last round.
    case consistentNotRestorable = "consistent-not-restorable"
    /// Something is wrong with it.
    case damaged
    /// There are no images.
    case noImages = "no-images"
  }

  /// What was checked of one round.
  public struct Round: Sendable, Equatable, Codable {
    /// Directory name.
    public var name: String
    /// The round's number by its own record; nil without one.
    public var index: Int?
    /// Whether it was taken from the frozen process; nil without a record of ours.
    public var isFrozen: Bool?
    /// Whether a digest of every page was there to compare with.
    public var hasDigests = false
    /// Pages whose bytes are in this round.
    public var pagesPresent: UInt64 = 0
    /// Of those, pages in blocks that take no bytes.
    public var pagesZero: UInt64 = 0
    /// Pages that the round takes from its parent.
    public var pagesFromParent: UInt64 = 0
    /// Bytes in its pages files.
    public var payloadBytes: UInt64 = 0
    /// Whether nothing is wrong with the round itself.
    public var isSound = true

    init(name: String) { self.name = name }
  }

  /// How many findings of one kind there are.
  public struct Count: Sendable, Equatable, Codable {
    /// What kind of thing was found.
    public var kind: DamageKind
    /// How often.
    public var count: UInt64
  }

  /// The outcome.
  public internal(set) var verdict: Verdict
  /// What was checked, as the caller named it.
  public internal(set) var directory: String
  /// The rounds, oldest first.
  public internal(set) var rounds: [Round] = []
  /// Directory name of the newest round up to which everything is sound; nil if there is none.
  public internal(set) var soundUpTo: String?
  /// Whether every page's bytes were compared with a digest of what was dumped.
  public internal(set) var contentChecked = false
  /// How the session ended, by its own record; nil without one.
  public internal(set) var outcome: SessionOutcome?
  /// The first few findings of each kind.
  public internal(set) var findings: [Finding] = []
  /// All findings, counted by kind.
  public internal(set) var counts: [Count] = []

  init(verdict: Verdict, directory: String) {
    self.verdict = verdict
    self.directory = directory
  }
}

extension SessionOutcome: Codable {}
