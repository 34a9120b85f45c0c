internal import Glibc
internal import Kernel

/// Holds CRIU where everything is dumped and nothing is decided: the process stands still, its
/// connections are locked.
///
/// CRIU runs the gate as its `--action-script`. If that says success for `post-dump`, CRIU ends the
/// process; if it fails, CRIU takes everything back. It fails when memdump is gone. (criu:
/// cr_dump_finish)
struct DecisionGate: ~Copyable {
  /// Its name in CRIU's working directory.
  static let scriptName = "memdump-gate"

  private let asked: OwnedPipe
  private let answer: OwnedPipe

  /// Writes the gate's script into `directory`.
  init(in directory: borrowing Directory) throws(KernelError) {
    let asked = try OwnedPipe()
    let answer = try OwnedPipe()
    // By our pid and number, not inherited: when we die there is nobody left to hold the other end.
    let own = "/proc/\(getpid())/fd"
    try directory.createProgram(
      Self.scriptName,
      text: """
        #!/bin/sh
        [ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0
        echo dumped > "\(own)/\(asked.input.number)" || exit 1
        read -r word < "\(own)/\(answer.output.number)" || exit 1
        [ "$word" = end ]

        """)
    self.asked = asked
    self.answer = answer
  }

  /// Becomes readable when CRIU asks.
  var descriptor: CInt { asked.output.number }

  /// Lets CRIU end the process, or take everything back.
  func decide(endsProcess: Bool) throws(KernelError) {
    try answer.say(endsProcess ? "end" : "go on")
  }
}
