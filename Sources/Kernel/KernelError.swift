public import SystemPackage

/// A system call that failed: which one, on what, and why.
public struct KernelError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The call's name as its manual page has it, such as `openat` or `ioctl(PAGEMAP_SCAN)`.
  public let call: String
  /// The file, pid or address range that the call was about.
  public let subject: String
  /// The kernel's reason.
  public let errno: Errno

  /// Describes the failure of `call` on `subject`.
  public init(call: String, subject: String, errno: Errno) {
    self.call = call
    self.subject = subject
    self.errno = errno
  }

  public var description: String { "\(subject): \(call): \(errno.description)" }
}

/// Runs `body` until it is not interrupted, and turns its −errno into a typed error.
///
/// The one place where EINTR is handled. `call` and `subject` are only evaluated on failure.
@inline(__always)
package func invoke<Value: SignedInteger>(
  _ call: @autoclosure () -> String, on subject: @autoclosure () -> String,
  _ body: () -> Value
) throws(KernelError) -> Value {
  while true {
    let result = body()
    if result >= 0 { return result }
    let errno = Errno(rawValue: CInt(-result))
    if errno != .interrupted {
      throw KernelError(call: call(), subject: subject(), errno: errno)
    }
  }
}
