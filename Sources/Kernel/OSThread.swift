internal import CLinux
internal import Glibc
internal import SystemPackage

/// A thread of the operating system that runs one closure.
///
/// For work that blocks, and for ptrace, which belongs to the very thread that attached: a Swift
/// task may hop. When the thread ends, the kernel detaches whatever it still traced.
package struct OSThread: ~Copyable {
  private let handle: pthread_t

  private final class Start {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }

  /// Starts a thread that runs `body`.
  ///
  /// - Parameter name: at most 15 bytes; shown by ps and gdb.
  /// - Throws: `KernelError` with EAGAIN if no thread can be had.
  package init(name: String, _ body: @escaping @Sendable () -> Void) throws(KernelError) {
    let start = Unmanaged.passRetained(
      Start {
        clinux_set_thread_name(name)
        body()
      })
    var handle = pthread_t()
    let code = pthread_create(
      &handle, nil,
      { argument in
        // The reference that the creator retained for us.
        guard let argument else { return nil }
        Unmanaged<Start>.fromOpaque(argument).takeRetainedValue().body()
        return nil
      }, start.toOpaque())
    guard code == 0 else {
      start.release()
      throw KernelError(call: "pthread_create", subject: name, errno: Errno(rawValue: code))
    }
    self.handle = handle
  }

  // Not joined: the thread's memory is given back when it ends.
  deinit { _ = pthread_detach(handle) }

  /// Waits until the closure has returned.
  package consuming func join() {
    _ = pthread_join(handle, nil)
    discard self
  }

  /// Runs `body` on a thread of its own and waits for its result.
  ///
  /// - Parameter meanwhile: run by the caller once that thread exists.
  package static func run<Value: Sendable, Failure: Error>(
    name: String, meanwhile: () -> Void = {},
    _ body: @escaping @Sendable () throws(Failure) -> Value
  ) throws(KernelError) -> Result<Value, Failure> {
    let box = ResultBox<Value, Failure>()
    let thread = try OSThread(name: name) {
      do throws(Failure) { box.result = .success(try body()) } catch {
        box.result = .failure(error)
      }
    }
    meanwhile()
    thread.join()
    guard let result = box.result else {
      throw KernelError(call: "pthread_join", subject: name, errno: .invalidArgument)
    }
    return result
  }

  /// Written by the thread, read after the join: never both at once.
  private final class ResultBox<Value: Sendable, Failure: Error>: @unchecked Sendable {
    var result: Result<Value, Failure>?
  }
}
