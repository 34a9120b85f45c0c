internal import Kernel
internal import Migration
internal import Predump

extension ReceiveCommand {
  /// `memdump receive --restore`: takes in a process that `memdump migrate` moves.
  func restore(_ receipt: ImageReceipt.Options, _ console: Console) throws(CommandFailure)
    -> ExitStatus
  {
    let cancellation = Cancellation()
    let status = StatusLine()
    let watch = SignalWatch(
      cancellation, onFirst: {}, onSecond: {}, onStatus: { console.err.write(status.text) })
    do throws(KernelError) { try watch.start() } catch {
      throw CommandFailure(PredumpError.kernel(error))
    }
    var options = ArrivalOptions(imagesDirectory: imagesDirectory)
    options.receipt = receipt
    options.receipt.sync = false
    options.criu = arrive.criu.program
    options.arguments = arrive.criu.arguments
    options.isLazy = arrive.lazy
    options.onEvent = arrive.onEvent
    options.hookTimeoutNanoseconds = arrive.hookTimeout.nanoseconds
    options.outcomePatienceNanoseconds = arrive.outcomeTimeout.nanoseconds
    var rounds: UInt64 = 0
    do throws(MigrationError) {
      let summary = try Arrival.run(options, cancellation: cancellation) { event in
        if case .round = event { rounds += 1 }
        tell(event, status, console)
      }
      if arrive.lazy && (console.isJSON || !quiet) { FilledBody(summary).tell(console) }
      return .success
    } catch {
      if case .incomplete = error { throw CommandFailure(error) }
      let gone = "the process does not run here"
      let kept = rounds == 0 ? "" : "; \(Units.count(rounds, "complete round")) kept"
      if case .process(.interrupted) = error {
        throw CommandFailure(watch.status, kind: "interrupted", "interrupted: \(gone)\(kept)")
      }
      let failure = CommandFailure(error)
      throw CommandFailure(
        failure.status, kind: failure.kind, "\(failure.message); \(gone)\(kept)")
    }
  }

  private func tell(_ event: ArrivalEvent, _ status: StatusLine, _ console: Console) {
    switch event {
    case .listening(let endpoint): tell(.listening(endpoint), console)
    case .round(let name):
      status.note("\(name) is stored")
      tell(.round(name: name), console)
    case .broken(let reason):
      console.warn("\(reason); waiting for the source to connect again")
    case .agreed(let pid):
      step("agreed", "Process \(pid) is to come", status, console)
    case .restoring: step("restoring", "Restoring", status, console)
    case .ready: step("ready", "Restored, and held until the source says go", status, console)
    case .restored(let summary):
      if console.isJSON {
        console.event("restored", RestoreBody(summary))
      } else if !quiet {
        let who = summary.pid.map { "Process \($0)" } ?? "The process"
        console.print("\(who) runs here")
      }
    case .awaitingQuestion:
      console.warn("the link broke: waiting for the source to ask what became of the process")
    case .warning(let text): console.warn(text)
    }
  }

  private func step(_ name: String, _ text: String, _ status: StatusLine, _ console: Console) {
    status.note(text)
    if console.isJSON {
      console.event("step", StepBody(step: name))
    } else if !quiet {
      console.print(text)
    }
  }

  private struct StepBody: Encodable, Sendable { let step: String }
}
