internal import Glibc

/// A queue between threads that waits when it is empty; ends when it is closed.
///
/// It never holds more elements than exist, so the number of buffers in circulation is the memory
/// limit; there is no second one here.
package final class BlockingQueue<Element: Sendable>: @unchecked Sendable {
  // Sendable because every access to `elements` and `closed` happens with `mutex` held. The
  // primitives have addresses of their own, as pthreads requires, and live as long as the queue.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let changed: UnsafeMutablePointer<pthread_cond_t>
  private var elements: [Element] = []
  private var closed = false
  private let givesLatest: Bool

  /// An empty, open queue.
  ///
  /// - Parameter givesLatest: the element that was added last comes out first, not last: a buffer that
  ///   is in a processor's cache, and not one that others have pushed out.
  package init(givesLatest: Bool = false) {
    self.givesLatest = givesLatest
    mutex = .allocate(capacity: 1)
    mutex.initialize(to: pthread_mutex_t())
    pthread_mutex_init(mutex, nil)
    changed = .allocate(capacity: 1)
    changed.initialize(to: pthread_cond_t())
    pthread_cond_init(changed, nil)
  }

  deinit {
    pthread_cond_destroy(changed)
    pthread_mutex_destroy(mutex)
    changed.deallocate()
    mutex.deallocate()
  }

  /// Adds an element at the end.
  package func put(_ element: Element) {
    pthread_mutex_lock(mutex)
    elements.append(element)
    pthread_cond_signal(changed)
    pthread_mutex_unlock(mutex)
  }

  /// Takes the next element, waiting for one; nil once the queue is closed and empty.
  package func take() -> Element? {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    // A loop: a wake-up may be spurious, or somebody else was faster.
    while elements.isEmpty {
      if closed { return nil }
      pthread_cond_wait(changed, mutex)
    }
    // A handful of buffers circulate: moving the rest up costs nothing.
    return givesLatest ? elements.removeLast() : elements.removeFirst()
  }

  /// Lets takers finish what is queued and then end.
  package func close() {
    pthread_mutex_lock(mutex)
    closed = true
    pthread_cond_broadcast(changed)
    pthread_mutex_unlock(mutex)
  }
}
