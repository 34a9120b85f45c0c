internal import Glibc
internal import Kernel

/// Holds CRIU where everything is done and nothing is decided.
///
/// CRIU runs the gate as its `--action-script`. At `post-dump` the process stands still and its
/// connections are locked: if the gate says success, CRIU ends the process; if it fails, CRIU takes
/// everything back. (criu: cr_dump_finish) At `post-restore` the copies are complete and have run no
/// instruction: if the gate fails, CRIU kills them. (criu: restore_root_task)
///
/// It fails when memdump is gone, unless that had said `hold`: then it waits for a word in the FIFO
/// `decision` beside it.
struct DecisionGate: ~Copyable {
  /// Its name in CRIU's working directory.
  static let scriptName = "memdump-gate"
  /// The FIFO's.
  static let decisionName = "decision"

  /// What the gate can be told.
  enum Word: String {
    /// CRIU does what it came for: ends the process, or lets the copies run.
    case end
    /// CRIU takes everything back.
    case goOn = "go-on"
    /// From now on our death decides nothing.
    case hold
  }

  private let asked: OwnedPipe
  private let answer: OwnedPipe

  /// Writes the gate's script into `directory`.
  ///
  /// - Parameter action: at which of CRIU's actions it holds.
  init(in directory: borrowing Directory, at action: String = "post-dump") throws(KernelError) {
    let asked = try OwnedPipe()
    let answer = try OwnedPipe()
    // By our pid and number, not inherited: when we die there is nobody left to hold the other end.
    let own = "/proc/\(getpid())/fd"
    try directory.createProgram(
      Self.scriptName,
      text: """
        #!/bin/sh
        [ "$CRTOOLS_SCRIPT_ACTION" = \(action) ] || exit 0
        exec 3< "\(own)/\(answer.output.number)" || exit 1
        echo asked > "\(own)/\(asked.input.number)" || exit 1
        held=
        while read -r word <&3; do
          if [ "$word" = \(Word.hold.rawValue) ]; then
            mkfifo -m 600 \(Self.decisionName)
            held=1
          else
            [ "$word" = \(Word.end.rawValue) ]
            exit
          fi
        done
        [ "$held" ] && read -r word < \(Self.decisionName) && [ "$word" = \(Word.end.rawValue) ]

        """)
    self.asked = asked
    self.answer = answer
  }

  /// Becomes readable when CRIU asks.
  var descriptor: CInt { asked.output.number }

  /// Tells the gate.
  func say(_ word: Word) throws(KernelError) { try answer.say(word.rawValue) }

  /// Lets CRIU end the process, or take everything back.
  func decide(endsProcess: Bool) throws(KernelError) { try say(endsProcess ? .end : .goOn) }
}
