internal import Glibc
internal import Kernel

/// Holds CRIU at its own actions until we say yes or no.
///
/// CRIU runs the gate as its `--action-script`, and waits for it. No, or our death, fails the action:
/// then CRIU takes everything back. (criu: action-scripts.c) After `hold` our death decides nothing:
/// then the gate waits for a word in the FIFO `decision` beside it.
struct ActionGate: ~Copyable {
  /// What CRIU is about to do, or has done, as it names it.
  enum Action: String, CaseIterable {
    /// CRIU is ready to dump and has touched nothing.
    case preDump = "pre-dump"
    /// Everything is dumped and nothing decided: the processes stand still, their connections are
    /// locked. After a yes CRIU ends them. (criu: cr_dump_finish)
    case postDump = "post-dump"
    /// Processes are restored and do not run yet. After a no CRIU kills them.
    /// (criu: restore_root_task)
    case postRestore = "post-restore"
  }

  /// Its name in CRIU's working directory.
  static let scriptName = "memdump-gate"
  /// The FIFO's.
  static let decisionName = "decision"

  private static let hold = "hold"
  private let questions: OwnedPipe
  private let answers: OwnedPipe

  /// Writes the gate's script, for these actions, into `directory`.
  init(_ actions: [Action], in directory: borrowing Directory) throws(KernelError) {
    let questions = try OwnedPipe()
    let answers = try OwnedPipe()
    // By our pid and number, not inherited: when we die there is nobody left to hold the other end.
    let own = "/proc/\(getpid())/fd"
    try directory.createProgram(
      Self.scriptName,
      text: """
        #!/bin/sh
        case "$CRTOOLS_SCRIPT_ACTION" in \(actions.map(\.rawValue).joined(separator: "|"))) ;;
        *) exit 0 ;;
        esac
        exec 3< "\(own)/\(answers.output.number)" || exit 1
        echo "$CRTOOLS_SCRIPT_ACTION" > "\(own)/\(questions.input.number)" || exit 1
        held=
        while read -r word <&3; do
          if [ "$word" = \(Self.hold) ]; then
            mkfifo -m 600 \(Self.decisionName)
            held=1
          else
            [ "$word" = \(Self.word(true)) ]
            exit
          fi
        done
        [ "$held" ] && read -r word < \(Self.decisionName) && [ "$word" = \(Self.word(true)) ]

        """)
    self.questions = questions
    self.answers = answers
  }

  /// Options that make a CRIU that runs in the gate's directory use it.
  static let arguments = ["--action-script", "./\(scriptName)"]

  /// Becomes readable when CRIU asks.
  var descriptor: CInt { questions.output.number }

  /// Waits until CRIU asks or has ended, which makes `end` readable: whether it asks.
  func isAsked(or end: CInt) throws(KernelError) -> Bool {
    try Readiness.wait(for: [descriptor, end]).contains(0)
  }

  /// What CRIU asks about; waits until it does.
  func question() throws -> Action {
    let text = try questions.line()
    guard let action = Action(rawValue: text) else {
      throw MigrationError.peer("CRIU's action script asks about \(text), which nobody told it to")
    }
    return action
  }

  /// Lets CRIU go on, or take everything back.
  func answer(_ yes: Bool) throws(KernelError) { try answers.say(Self.word(yes)) }

  /// From now on our death decides nothing.
  func hold() throws(KernelError) { try answers.say(Self.hold) }

  /// Answers for a memdump that is gone, after `hold`, in the gate's directory.
  ///
  /// - Returns: whether anybody waits for it.
  static func answer(_ yes: Bool, in directory: borrowing Directory) throws(KernelError) -> Bool {
    try NamedPipe.say(word(yes), to: decisionName, in: directory)
  }

  private static func word(_ yes: Bool) -> String { yes ? "yes" : "no" }
}
