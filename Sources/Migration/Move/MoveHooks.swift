internal import Kernel
internal import Predump

/// What a command of the user's is told of a migration, besides the events of the rounds. The raw
/// value is what it sees in MEMDUMP_EVENT.
public enum MoveEvent: String, Sendable, CaseIterable {
  /// At the source: CRIU has dumped the process, its connections are locked.
  case dumped
  /// At the source: the copy runs there, and the process here has ended.
  case committed
  /// At the source: the process, which stood still, runs on here.
  case resumed
  /// At the source: the migration is over and failed.
  case failed
  /// At the destination: the process is to be restored in a moment; the source holds it.
  case preRestore = "pre-restore"
  /// At the destination: the process runs.
  case restored
  /// At the destination: nothing was restored, or what was is gone again.
  case restoreFailed = "restore-failed"

  /// Whether a command that fails ends the migration: there is something left to end.
  var isVeto: Bool { self == .dumped || self == .preRestore }
}

/// Runs the user's command at the events of a migration.
struct MoveHooks {
  private static let lookMilliseconds: Int32 = 20

  let command: String?
  let timeoutNanoseconds: UInt64
  /// What the command sees besides the event.
  var environment: [String: String]
  let cancellation: Cancellation
  let onWarning: (String) -> Void

  /// Tells the command.
  ///
  /// - Throws: `.process(.command)` if it fails and the event is one that can still be stopped,
  ///   `.process(.interrupted)` if the user asked to stop meanwhile.
  func tell(_ event: MoveEvent, message: String? = nil) throws(MigrationError) {
    guard let command else { return }
    do throws(PredumpError) { try run(command, event, message) } catch {
      if event.isVeto { throw .process(error) }
      onWarning("\(error)")
    }
  }

  private func run(_ text: String, _ event: MoveEvent, _ message: String?) throws(PredumpError) {
    func failure(_ how: String) -> PredumpError {
      .command("the command of --on-event \(how) (event \(event.rawValue))")
    }
    var values = environment
    values["MEMDUMP_EVENT"] = event.rawValue
    values["MEMDUMP_MESSAGE"] = message
    let running: ShellCommand
    do throws(KernelError) { running = try ShellCommand(text, environment: values) { _ in } } catch
    {
      throw failure("could not be started: \(error)")
    }
    let deadline = MonotonicClock.now + timeoutNanoseconds
    while true {
      switch running.end(within: Self.lookMilliseconds) {
      case .exited(0)?: return
      case .exited(let code)?: throw failure("exited with code \(code)")
      case .killed(let signal)?: throw failure("was killed by signal \(signal)")
      case nil: break
      }
      if event.isVeto, cancellation.isCancelled {
        running.stop()
        throw .interrupted
      }
      if MonotonicClock.now > deadline {
        running.stop()
        throw failure("did not end within \(timeoutNanoseconds / 1_000_000) ms (--hook-timeout)")
      }
    }
  }
}
