internal import Glibc
internal import Images
internal import Kernel
public import Predump

/// Moves a running process to where `Arrival` waits.
///
/// At every moment exactly one side may let the process run. Until the destination holds a complete
/// copy, and is told to let it run, that is this side: whatever fails, or if this process is killed,
/// the process here runs on. From that word on it is the destination, and the process here is held
/// until the destination says what became of the copy.
public enum Migrate {
  /// Runs a whole migration. Blocks until it is over.
  ///
  /// - Throws: `MigrationError`; the process runs on here, but for `.undecided`.
  public static func run(
    _ options: MigrateOptions, cancellation: Cancellation = Cancellation(),
    onEvent: @escaping @Sendable (MigrateEvent) -> Void
  ) throws(MigrationError) -> MigrateSummary {
    do {
      try SourceSide.checkTarget(options.predump.pid)
      try options.criu.checkPresent()
      let directory = try MoveDirectory.create(in: options.workDirectory)
      var migration = SourceSide(options, cancellation, onEvent, directory.path)
      do {
        let summary = try migration.run(in: directory)
        try? MoveDirectory.remove(directory.path)
        return summary
      } catch {
        if !migration.leavesDirectory(error) { try? MoveDirectory.remove(directory.path) }
        throw error
      }
    } catch {
      if cancellation.isCancelled, case .process(.link) = MigrationError(error) {
        throw .process(.interrupted)
      }
      throw MigrationError(error)
    }
  }
}
