internal import Predump

/// Tells the user what happens during a dump.
protocol PredumpReporter: Sendable {
  /// Tells of an event. Called on the engine's thread.
  func handle(_ event: PredumpEvent)
  /// Tells how the dump ended.
  func finish(_ summary: PredumpSummary)
  /// Says that the wish to stop was heard. Called on a thread of its own.
  func stopping()
  /// Leaves the terminal clean. Called before errors and before a sudden end.
  func eraseProgress()
  /// Rounds on disk so far.
  var completeRounds: Int { get }
}
