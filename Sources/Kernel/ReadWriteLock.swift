internal import CLinux
internal import Glibc

/// A value that several threads may look at together, or one may change; who wants to change it goes
/// first.
package final class ReadWriteLock<Value: Sendable>: @unchecked Sendable {
  // Sendable because pthreads orders all accesses to `value`. The lock has an address of its own, as
  // pthreads requires, and lives as long as this object.
  private let lock: UnsafeMutablePointer<pthread_rwlock_t>
  private var value: Value

  /// An open lock around `value`.
  package init(_ value: Value) {
    self.value = value
    lock = .allocate(capacity: 1)
    lock.initialize(to: pthread_rwlock_t())
    clinux_init_rwlock(lock)
  }

  deinit {
    pthread_rwlock_destroy(lock)
    lock.deallocate()
  }

  /// Runs `body` while nobody changes the value.
  package func withReading<Result: ~Copyable, Failure: Error>(
    _ body: (borrowing Value) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    pthread_rwlock_rdlock(lock)
    defer { pthread_rwlock_unlock(lock) }
    return try body(value)
  }

  /// Runs `body`, which may change the value, while nobody else looks at it.
  package func withWriting<Result: ~Copyable, Failure: Error>(
    _ body: (inout Value) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    pthread_rwlock_wrlock(lock)
    defer { pthread_rwlock_unlock(lock) }
    return try body(&value)
  }
}
