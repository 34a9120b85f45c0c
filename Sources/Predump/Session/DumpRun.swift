internal import Images
internal import Kernel

/// What surrounds a session: checks, hooks, the link, and the look at what the dump has cost.
enum DumpRun {
  /// Runs a whole dump on the calling thread.
  static func run(
    _ options: PredumpOptions, _ cancellation: Cancellation,
    _ onEvent: @escaping @Sendable (PredumpEvent) -> Void
  ) throws(PredumpError) -> PredumpSummary {
    let (checks, look) = GroundCheck.look(
      pid: options.pid, imagesDirectory: options.imagesDirectory)
    if let failure = checks.failure { throw failure }
    for item in checks.items where item.status == .warning {
      onEvent(.warning("\(item.title): \(item.detail)"))
    }
    try options.gentleness.apply()
    let hooks = try HookRunner(options, cancellation, onEvent)
    do throws(PredumpError) {
      let watch = try TargetWatch(options, look)
      // The receiver first: a dump that has nowhere to go leaves the target alone.
      let link = try DumpLink.connect(options, cancellation, onEvent)
      var session = try PredumpSession(options, link, look, cancellation, onEvent, hooks)
      var summary = try session.run()
      // Tracking ends with the session.
      _ = consume session
      watch.finish(&summary, options, cancellation)
      try hooks.tell(.complete)
      return summary
    } catch {
      try? hooks.tell(.failed, message: "\(error)")
      throw error
    }
  }
}
