internal import Kernel
internal import SystemPackage

/// Incremental memory dumps of running processes.
public enum Predump {
  /// memdump's version.
  public static let version = "0.1.0"

  /// Dumps a process in rounds while it runs, and ends with a round under a short freeze.
  ///
  /// Blocks until the dump is over; the work is done on threads of its own, one of which is the
  /// tracer of the target. Whatever happens, also if this process is killed, the target runs on,
  /// and nothing of the tracking is left in it.
  ///
  /// - Parameters:
  ///   - cancellation: ends the dump at the next safe point when asked; complete rounds are kept.
  ///   - meanwhile: called once on the calling thread, when the dump's own threads are at work. The
  ///     engine's threads give up, when the target is tracked, the capabilities that they need no
  ///     more; the calling thread keeps its own, unless this gives them up.
  ///   - onEvent: called on the engine's thread; must return soon.
  /// - Returns: how it ended; the outcome is `.complete`, `.completeOverBudget` or `.preDumpOnly`.
  /// - Throws: `PredumpError`; rounds that were complete before are kept, and marked so.
  public static func run(
    _ options: PredumpOptions, cancellation: Cancellation = Cancellation(),
    meanwhile: () -> Void = {},
    onEvent: @escaping @Sendable (PredumpEvent) -> Void
  ) throws(PredumpError) -> PredumpSummary {
    let result: Result<PredumpSummary, PredumpError>
    do throws(KernelError) {
      result = try OSThread.run(name: "memdump-engine", meanwhile: meanwhile) {
        () throws(PredumpError) in
        try DumpRun.run(options, cancellation, onEvent)
      }
    } catch { throw .kernel(error) }
    return try result.get()
  }
}
