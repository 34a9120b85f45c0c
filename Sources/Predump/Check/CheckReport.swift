/// What `GroundCheck` found, item by item.
public struct CheckReport: Sendable {
  /// One thing that was looked at.
  public struct Item: Sendable, Equatable {
    /// A stable name for scripts, such as `kernel.pagemap-scan`.
    public var id: String
    /// What was looked at, for people.
    public var title: String
    /// What was found.
    public var status: Status
    /// What was found, in words.
    public var detail: String
    /// What would mend it; empty if nothing is to be mended.
    public var remedy: String

    /// Describes a finding.
    public init(id: String, title: String, status: Status, detail: String, remedy: String = "") {
      self.id = id
      self.title = title
      self.status = status
      self.detail = detail
      self.remedy = remedy
    }
  }

  /// How an item stands.
  public enum Status: String, Sendable, CaseIterable {
    /// As it should be.
    case ok
    /// A dump works, with a limit that `detail` names.
    case warning
    /// A dump cannot work.
    case missing
  }

  /// The findings, in the order in which they were made.
  public var items: [Item]
  /// What a dump would fail with; nil if it would not.
  public var failure: PredumpError?

  /// A report of these findings.
  public init(items: [Item], failure: PredumpError?) {
    self.items = items
    self.failure = failure
  }
}
