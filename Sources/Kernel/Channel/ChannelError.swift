internal import SystemPackage

/// Why a connection cannot be made, or is of no more use.
public struct ChannelError: Error, Sendable, CustomStringConvertible {
  /// The endpoint or the file that it is about.
  public let subject: String
  /// What is wrong, in words.
  public let message: String
  /// The system call that failed, if one did.
  public let cause: KernelError?

  /// Describes what is wrong with `subject`.
  public init(_ subject: String, _ message: String) {
    self.subject = subject
    self.message = message
    cause = nil
  }

  /// Wraps a system call that failed.
  public init(_ cause: KernelError) {
    subject = cause.subject
    message = "\(cause.call): \(cause.errno.description)"
    self.cause = cause
  }

  public var description: String { "\(subject): \(message)" }
}

/// Runs `body` and turns its system call's failure into a `ChannelError`.
@inline(__always)
func onChannel<Value: ~Copyable>(_ body: () throws(KernelError) -> Value) throws(ChannelError)
  -> Value
{
  do throws(KernelError) { return try body() } catch { throw ChannelError(error) }
}
