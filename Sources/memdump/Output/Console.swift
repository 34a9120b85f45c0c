internal import Glibc

/// Where a command writes: results to standard output, everything else to standard error.
struct Console: Sendable {
  let out: TextStream
  let err = TextStream(STDERR_FILENO)
  let outStyle: Style
  let errStyle: Style
  /// Whether results are JSON, an object a line.
  let isJSON: Bool

  init(isJSON: Bool, color: ColorChoice, isStdoutTaken: Bool = false) {
    self.isJSON = isJSON
    out = TextStream(isStdoutTaken ? STDERR_FILENO : STDOUT_FILENO)
    outStyle = Style(color, on: out)
    errStyle = Style(color, on: err)
  }

  /// Prints a line of results.
  func print(_ line: String) { out.write(line + "\n") }

  /// Prints an event of this name.
  func event(_ name: String, _ body: some Encodable & Sendable) {
    out.write(JSONLine(event: name, body: body).text)
  }

  /// Says what the user should know.
  func warn(_ message: String) {
    if isJSON {
      event("warning", MessageBody(message: message))
    } else {
      err.write("memdump: \(errStyle.yellow("warning:")) \(message)\n")
    }
  }

  /// Says why the command ends without success.
  func report(_ failure: CommandFailure) {
    if isJSON {
      event(
        "error",
        ErrorBody(
          exitCode: failure.status.rawValue, kind: failure.kind, message: failure.message))
    }
    err.write("memdump: \(errStyle.red("error:")) \(failure.message)\n")
  }

  private struct MessageBody: Encodable {
    let message: String
  }

  private struct ErrorBody: Encodable {
    let exitCode: Int32
    let kind: String
    let message: String
  }
}
