internal import Kernel

/// Lets a stopped process go on if memdump dies: a shell that waits for our word, or for our end.
///
/// CRIU gives its work up when we are gone, because nobody takes its images, and leaves the process
/// as it found it: stopped. The guard waits until CRIU has let go of it.
struct ProcessGuard: ~Copyable {
  private static let script = """
    read -r word && [ "$word" = done ] && exit 0
    while [ -e "/proc/$1/status" ] && ! grep -q '^TracerPid:[[:space:]]*0$' "/proc/$1/status"
    do sleep 0.02; done
    kill -CONT "$1"
    """

  private let shell: ChildProcess
  private let words: OwnedPipe

  /// Guards process `pid`.
  init(_ pid: Int32) throws(KernelError) {
    let words = try OwnedPipe()
    let shell = try ChildProcess(
      "/bin/sh", ["-c", Self.script, "memdump-guard", "\(pid)"], input: words.output.number,
      output: .discarded, hasOwnGroup: true)
    self.shell = shell
    self.words = words
  }

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
