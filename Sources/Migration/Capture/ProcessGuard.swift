internal import Kernel

/// Lets stopped processes go on if memdump dies: a shell that waits for our word, or for our end.
///
/// CRIU gives its work up when we are gone, because nobody takes its images, and leaves processes as
/// it found them: stopped. The guard waits until CRIU has let go of them.
struct ProcessGuard: ~Copyable, Sendable {
  private static let script = """
    while read -r word; do
      [ "$word" = done ] && exit 0
      held=1
    done
    [ "$held" ] && exit 0
    for pid; do
      while [ -e "/proc/$pid/status" ] && ! grep -q '^TracerPid:[[:space:]]*0$' "/proc/$pid/status"
      do sleep 0.02; done
    done
    kill -CONT "$@"
    """

  private let shell: ChildProcess
  private let words: OwnedPipe

  /// Guards these processes.
  init(_ pids: [Int32]) throws(KernelError) {
    let words = try OwnedPipe()
    let shell = try ChildProcess(
      "/bin/sh", ["-c", Self.script, "memdump-guard"] + pids.map(String.init),
      input: words.output.number,
      output: .discarded, hasOwnGroup: true)
    self.shell = shell
    self.words = words
  }

  /// From now on our death lets nothing go on: it is not ours alone to decide.
  func hold() throws(KernelError) { try words.say("hold") }

  /// Guards no more; its end is not waited for.
  func release() { try? words.say("done") }

  /// Guards no more.
  consuming func dismiss() throws(KernelError) {
    try words.say("done")
    _ = try shell.wait()
  }
}

extension OwnedPipe {
  /// Writes a line into the pipe.
  func say(_ word: String) throws(KernelError) {
    try Array("\(word)\n".utf8).withUnsafeBufferPointer { bytes throws(KernelError) in
      try input.write(UnsafeRawBufferPointer(bytes), subject: "a pipe")
    }
  }
}
