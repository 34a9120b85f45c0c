/// Parts of root's power that memdump has a use for (capabilities(7)), as the kernel's bits.
package struct Capabilities: OptionSet, Sendable {
  package let rawValue: UInt64
  package init(rawValue: UInt64) { self.rawValue = rawValue }

  package static let overrideFilePermissions = Capabilities(rawValue: 1 << 1)
  package static let searchAllFiles = Capabilities(rawValue: 1 << 2)
  package static let signalOthers = Capabilities(rawValue: 1 << 5)
  package static let traceOthers = Capabilities(rawValue: 1 << 19)
  package static let administer = Capabilities(rawValue: 1 << 21)
  package static let raisePriority = Capabilities(rawValue: 1 << 23)
  package static let raiseLimits = Capabilities(rawValue: 1 << 24)
  package static let checkpoint = Capabilities(rawValue: 1 << 40)

  /// What writing images takes in a directory of somebody else's.
  package static let files: Capabilities = [.overrideFilePermissions, .searchAllFiles]
}
