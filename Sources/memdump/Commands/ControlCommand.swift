internal import ArgumentParser
internal import Kernel

/// `memdump control`: says something to a dump that runs.
struct ControlCommand: Subcommand {
  static let configuration = CommandConfiguration(
    commandName: "control",
    abstract: "Ask a dump that runs with --control how far it is, or to end.",
    discussion: """
      status prints how far it is; final takes the last round as soon as the live round that is under
      way is complete; abort ends the dump: the process runs on, complete rounds are kept. The answer
      is one line of JSON.
      Example:
        memdump control /run/memdump.sock status
      \(ExitStatus.line([.success, .failure, .linkBroken, .usage]))
      """)

  @Argument(help: "What --control of the dump names.")
  var socket: String

  @Argument(help: "status, final or abort.")
  var command: String

  /// How long the dump may take to answer (ns).
  private static let patienceNanoseconds: UInt64 = 10_000_000_000
  private static let answerLimit = 65536

  func console() -> Console { Console(isJSON: false, color: .auto) }

  func execute(_ console: Console) throws(CommandFailure) -> ExitStatus {
    let answer: String
    do throws(ChannelError) { answer = try ask() } catch {
      throw CommandFailure(.linkBroken, kind: "link", "no dump answers: \(error)")
    }
    console.print(answer)
    return answer.contains("\"event\":\"refused\"") ? .failure : .success
  }

  private func ask() throws(ChannelError) -> String {
    let channel = try Endpoint.unix(path: socket).connect(milliseconds: 1000)
    var question = Array((command + "\n").utf8)
    // So short that there is always room.
    var sent = Result<ByteChannel.Progress, ChannelError>.success(.ended)
    question.withUnsafeMutableBytes { bytes in
      sent = Result { () throws(ChannelError) in
        try channel.write(UnsafeRawBufferPointer(bytes))
      }
    }
    _ = try sent.get()
    var answer: [UInt8] = []
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 1)
    defer { buffer.deallocate() }
    let deadline = MonotonicClock.now + Self.patienceNanoseconds
    while MonotonicClock.now < deadline, answer.count < Self.answerLimit {
      switch try channel.read(into: buffer) {
      case .moved(let count):
        answer += buffer[..<count]
        if answer.last == 0x0a { return String(decoding: answer.dropLast(), as: UTF8.self) }
      case .mustWait:
        do throws(KernelError) { try channel.wait(forRoom: false, milliseconds: 100) } catch {
          throw ChannelError(error)
        }
      case .ended: throw ChannelError(socket, "it hung up")
      }
    }
    throw ChannelError(socket, "no answer")
  }
}
