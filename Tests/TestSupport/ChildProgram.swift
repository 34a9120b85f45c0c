package import Foundation
import Glibc
import Synchronization

/// A program that a test started; killed when the test is done with it.
///
/// Not Foundation's `Process`: that waits in a run loop, which takes more of a kernel than the virtual
/// machines of `scripts/kernels.sh` have.
package final class ChildProgram: @unchecked Sendable {
  // Sendable: `status` is locked; everything else is set up in init and then only used by the test
  // that made it.
  /// Its process id.
  package let pid: Int32
  private let input: Int32
  private let output: Int32
  private var buffered: [UInt8] = []
  /// What waitpid said, once it has ended.
  private let status = Mutex<Int32?>(nil)

  /// Starts the program at `path`.
  ///
  /// - Parameters:
  ///   - errors: the file that gets its standard error; without it, it is the test's own.
  ///   - lifetime: seconds after which it is killed, so that a test of a program that hangs fails.
  package init(
    _ path: String, _ arguments: [String], errors: URL? = nil, lifetime: Int? = nil
  ) throws {
    // A program that has ended reads nothing any more; that is for the test to find out.
    signal(SIGPIPE, SIG_IGN)
    let (toChild, fromChild) = (try Self.pipe(), try Self.pipe())
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    posix_spawn_file_actions_adddup2(&actions, toChild.output, 0)
    posix_spawn_file_actions_adddup2(&actions, fromChild.input, 1)
    if let errors {
      posix_spawn_file_actions_addopen(
        &actions, 2, errors.path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    }
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    var (none, all) = (sigset_t(), sigset_t())
    sigemptyset(&none)
    sigfillset(&all)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &all)
    posix_spawnattr_setflags(
      &attributes, Int16(POSIX_SPAWN_SETSIGMASK) | Int16(POSIX_SPAWN_SETSIGDEF))
    var words = ([path] + arguments).map { strdup($0) } + [nil]
    var child: pid_t = 0
    let code = posix_spawn(&child, path, &actions, &attributes, &words, environ)
    for word in words { free(word) }
    posix_spawn_file_actions_destroy(&actions)
    posix_spawnattr_destroy(&attributes)
    close(toChild.output)
    close(fromChild.input)
    (pid, input, output) = (child, toChild.input, fromChild.output)
    guard code == 0 else {
      // Nothing was started that could be waited for.
      status.withLock { $0 = 0 }
      throw CocoaError(.executableLoad, userInfo: [NSFilePathErrorKey: path])
    }
    if let lifetime {
      let deadline = DispatchTime.now() + .seconds(lifetime)
      DispatchQueue.global().asyncAfter(deadline: deadline) { [weak self] in self?.end() }
    }
  }

  deinit {
    end()
    close(input)
    close(output)
  }

  private static func pipe() throws -> (output: Int32, input: Int32) {
    var ends: [Int32] = [-1, -1]
    guard Glibc.pipe(&ends) == 0 else { throw CocoaError(.fileReadUnknown) }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    return (ends[0], ends[1])
  }

  /// Whether it has not ended.
  package var isRunning: Bool { reap(WNOHANG) == nil }

  /// The next line that it prints, waiting for one; nil when it ends.
  package func readLine() -> String? {
    var bytes = [UInt8](repeating: 0, count: 4096)
    while true {
      if let newline = buffered.firstIndex(of: 0x0a) {
        let line = String(decoding: buffered[..<newline], as: UTF8.self)
        buffered.removeSubrange(...newline)
        return line
      }
      let count = read(output, &bytes, bytes.count)
      if count < 0, errno == EINTR { continue }
      if count <= 0 { return nil }
      buffered += bytes[..<count]
    }
  }

  /// The first line that begins with `prefix`; nil when the program ends without one.
  package func line(beginning prefix: String) -> String? {
    while let line = readLine() {
      if line.hasPrefix(prefix) { return line }
    }
    return nil
  }

  /// Sends a line to its standard input.
  package func send(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    var done = 0
    while done < bytes.count {
      let count = bytes[done...].withUnsafeBytes { write(input, $0.baseAddress, $0.count) }
      if count < 0, errno == EINTR { continue }
      if count <= 0 { return }
      done += count
    }
  }

  /// Waits for its end.
  ///
  /// - Returns: its exit status, or the signal that ended it.
  package func wait() -> Int32 {
    while true {
      // Not under the lock for as long as it runs: somebody may want to end it.
      var info = siginfo_t()
      waitid(P_PID, id_t(pid), &info, WEXITED | WNOWAIT)
      guard let status = reap(WNOHANG) else { continue }
      return status & 0x7f == 0 ? status >> 8 & 0xff : status & 0x7f
    }
  }

  /// Kills it and waits for its end.
  package func end() {
    // The lock keeps the process id from being reaped, and then another's.
    let isOver = status.withLock { status in
      if status == nil { kill(pid, SIGKILL) }
      return status != nil
    }
    if !isOver { _ = wait() }
  }

  private func reap(_ options: Int32) -> Int32? {
    status.withLock { status in
      if let status { return status }
      var value: Int32 = 0
      if waitpid(pid, &value, options) == pid { status = value }
      return status
    }
  }
}

/// The directory that holds the executables of this build.
package var productsDirectory: URL {
  URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
}
