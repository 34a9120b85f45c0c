internal import Glibc

/// A lock between threads, for code that waits for the kernel while it holds it.
package final class ThreadMutex: @unchecked Sendable {
  // Sendable because pthreads orders all accesses. The mutex has an address of its own, as pthreads
  // requires, and lives as long as this object.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>

  /// An open lock.
  package init() {
    mutex = .allocate(capacity: 1)
    mutex.initialize(to: pthread_mutex_t())
    pthread_mutex_init(mutex, nil)
  }

  deinit {
    pthread_mutex_destroy(mutex)
    mutex.deallocate()
  }

  /// Runs `body` with the lock held, waiting for it.
  package func withLock<Value, Failure: Error>(_ body: () throws(Failure) -> Value) throws(Failure)
    -> Value
  {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return try body()
  }

  /// Runs `body` with the lock held, unless somebody else holds it.
  package func withLockIfFree(_ body: () -> Void) {
    guard pthread_mutex_trylock(mutex) == 0 else { return }
    defer { pthread_mutex_unlock(mutex) }
    body()
  }
}
