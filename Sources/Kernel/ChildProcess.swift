internal import CLinux
internal import Glibc

/// A program that we started and have to wait for.
package struct ChildProcess: ~Copyable, Sendable {
  /// Its process id; nobody else's until `wait` returned.
  package let pid: Int32
  private let program: String
  private let pidDescriptor: OwnedDescriptor

  /// How a program ended.
  package enum End: Sendable, Equatable {
    /// It exited with this status.
    case exited(Int32)
    /// This signal ended it.
    case killed(Int32)
  }

  /// Where a program's output goes.
  package enum Output: Sendable {
    /// To where ours goes.
    case inherited
    /// Nowhere.
    case discarded
  }

  /// Starts `program`, found as a shell finds it, with default signals.
  ///
  /// - Parameters:
  ///   - directory: its working directory; without one, ours.
  ///   - input: becomes its standard input; without one, that is empty.
  ///   - hasOwnGroup: whether ^C on our terminal passes it by.
  package init(
    _ program: String, _ arguments: [String], directory: CInt? = nil, input: CInt? = nil,
    output: Output = .inherited, hasOwnGroup: Bool
  ) throws(KernelError) {
    let discards: CInt = output == .discarded ? 1 : 0
    // The copies live until the call returned; posix_spawn makes its own.
    var words = ([program] + arguments).map { strdup($0) } + [nil]
    defer { for word in words { free(word) } }
    let pid = try invoke("posix_spawn", on: program) {
      clinux_spawn(program, &words, directory ?? -1, input ?? -1, discards, hasOwnGroup ? 1 : 0)
    }
    let descriptor = try Self.descriptor(of: pid, program)
    pidDescriptor = descriptor
    self.pid = pid
    self.program = program
  }

  private static func descriptor(of pid: Int32, _ program: String) throws(KernelError)
    -> OwnedDescriptor
  {
    do throws(KernelError) {
      return OwnedDescriptor(
        owning: try invoke("pidfd_open", on: program) { clinux_pidfd_open(pid, 0) })
    } catch {
      // A child that nobody could wait for must not be left.
      _ = clinux_wait_end(pid)
      throw error
    }
  }

  /// Becomes readable when the program has ended.
  package var descriptor: CInt { pidDescriptor.number }

  /// Waits for the end.
  package consuming func wait() throws(KernelError) -> End {
    let pid = pid
    let status = try invoke("waitpid", on: program) { clinux_wait_end(pid) }
    return status >= 256 ? .killed(status - 256) : .exited(status)
  }
}
