/// Tries the kernel's write tracking on small mappings of memdump's own.
package enum TrackingSelfTest {
  /// How one behaviour was found to be.
  package struct Result: Sendable, Equatable {
    /// The behaviour, as a sentence that should be true.
    package let name: String
    /// Whether it is.
    package let passed: Bool
    /// What was seen instead; empty if it passed.
    package let detail: String
  }

  /// Tries everything.
  package static func run() -> [Result] { [] }
}
