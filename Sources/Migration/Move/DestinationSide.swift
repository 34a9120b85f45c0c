internal import Glibc
internal import Images
internal import Kernel
internal import Predump

/// The destination's side of one migration.
final class DestinationSide {
  private static let lookMilliseconds: Int32 = 20
  /// A stranger that connects and says nothing.
  private static let strangerNanoseconds: UInt64 = 500_000_000
  /// What a TLS handshake may take while something waits for this side.
  private static let visitorMilliseconds: Int32 = 2_000

  private let options: ArrivalOptions
  private let cancellation: Cancellation
  private let onEvent: (ArrivalEvent) -> Void
  private var link: MoveLink?
  /// The source, which came back with its question on a new connection.
  private var question: MoveLink?
  private var identity: MoveIdentity?
  private var pid: Int32 = 0
  /// Whether the source has heard that the copy is ready: only then can it ask what became of it.
  private var wasReady = false

  init(
    _ options: ArrivalOptions, _ cancellation: Cancellation,
    _ onEvent: @escaping (ArrivalEvent) -> Void
  ) {
    self.options = options
    self.cancellation = cancellation
    self.onEvent = onEvent
  }

  /// Receives and restores a process.
  func run(_ listener: Listener) throws -> RestoreSummary {
    let directory = options.receipt.imagesDirectory
    var hooks = MoveHooks(
      command: options.onEvent, timeoutNanoseconds: options.hookTimeoutNanoseconds,
      environment: ["MEMDUMP_IMAGES_DIR": WorkingDirectory.absolute(directory)],
      cancellation: cancellation, onWarning: { [onEvent] in onEvent(.warning($0)) })
    var runs = false
    do {
      let receipt = try receiveRounds(listener)
      hooks.environment["MEMDUMP_PID"] = "\(pid)"
      let outcome = receipt.outcome
      guard outcome == .complete || outcome == .completeOverBudget else {
        if case .aborted(let text)? = try? link?.take(within: 2_000) {
          throw MigrationError.refusedThere(text)
        }
        throw MigrationError.refusedThere("the rounds ended without a last one")
      }
      let strangers = present()
      let copy = try receiveState { () throws(MigrationError) in try hooks.tell(.preRestore) }
      return try restore(copy, strangers, listener) { summary in
        runs = true
        onEvent(.restored(summary))
        tell(.running(pid: summary.pid ?? pid), listener)
        try? hooks.tell(.restored)
      }
    } catch {
      // The source has ended it by now: what is here is all that there is.
      if runs { throw error }
      let text = "\(MigrationError(error))"
      try? StateImages.remove(from: directory)
      tell(.aborted(text), listener)
      try? hooks.tell(.restoreFailed, message: text)
      throw error
    }
  }

  // MARK: Until the images are here

  private func receiveRounds(_ listener: Listener) throws -> ImageReceipt.Summary {
    let readsCompressed = try options.criu.readsCompressedImages()
    var failure: (any Error)?
    do {
      return try ImageReceipt.run(
        options.receipt, cancellation: cancellation,
        onEvent: { [onEvent] event in
          switch event {
          case .round(let name): onEvent(.round(name: name))
          case .broken(let reason): onEvent(.broken(reason))
          default: break
          }
        },
        connect: { (broken) throws(PredumpError) in
          do {
            if let broken {
              return try self.meetAgain(listener, broken, readsCompressed: readsCompressed)
            }
            // The directory can be used: now it may begin.
            self.onEvent(.listening(listener.endpoint))
            return try self.meet(listener, readsCompressed: readsCompressed)
          } catch {
            failure = error
            throw .interrupted
          }
        },
        settle: { (outcome) throws(ImageError) in
          do { try self.awaitDump(after: outcome) } catch {
            if let broken = error as? ImageError { throw broken }
            failure = error
            throw ImageError(.misuse, file: listener.endpoint.text, "the migration is over")
          }
        })
    } catch { throw failure ?? error }
  }

  /// Says that all rounds are here, and returns when the source goes on with the rest.
  ///
  /// - Throws: kind `.link` if the connection breaks before: then it may be made anew.
  private func awaitDump(after outcome: SessionOutcome?) throws {
    guard let link, outcome?.isComplete ?? false else { return }
    link.resume()
    try link.put(.arrived)
    switch try link.take() {
    case .dumping: return
    case .aborted(let text): throw MigrationError.refusedThere(text)
    default: throw MigrationError.peer("\(link.subject) says what makes no sense")
    }
  }

  /// Waits until the source has made both connections.
  ///
  /// - Returns: that of the rounds.
  private func meet(_ listener: Listener, readsCompressed: Bool) throws -> ByteChannel {
    let first = try nextConnection(listener)
    do {
      try agree(with: first, readsCompressed: readsCompressed)
      return try nextConnection(listener)
    } catch let error as ImageError where error.kind == .link && identity != nil {
      let patience = options.receipt.reconnectNanoseconds
      if patience == 0 { throw error }
      onEvent(.broken("\(error)"))
      let broken = ImageReceipt.Break(failure: error, deadline: MonotonicClock.now + patience)
      return try meetAgain(listener, broken, readsCompressed: readsCompressed)
    }
  }

  private func nextConnection(_ listener: Listener) throws -> ByteChannel {
    while true {
      if cancellation.isCancelled { throw PredumpError.interrupted }
      // The source gives up on the first connection, if it does.
      if let link, case .aborted(let text)? = try link.take(within: 0) {
        throw MigrationError.refusedThere(text)
      }
      let cancellation = cancellation
      switch try listener.accept(
        milliseconds: Self.lookMilliseconds, isCancelled: { cancellation.isCancelled })
      {
      case .channel(let channel): return channel
      case .refused(let error): onEvent(.warning("somebody was turned away: \(error)"))
      case .nobody: break
      }
    }
  }

  /// As `meet`, after one of them broke.
  private func meetAgain(
    _ listener: Listener, _ broken: ImageReceipt.Break, readsCompressed: Bool
  ) throws -> ByteChannel {
    var hasAgreed = false
    while true {
      if cancellation.isCancelled { throw PredumpError.interrupted }
      if MonotonicClock.now >= broken.deadline { throw broken.failure }
      // Of the old connection only this word counts; without the new one there are no rounds.
      do {
        if let link, case .aborted(let text)? = try link.take(within: 0) {
          throw MigrationError.refusedThere(text)
        }
      } catch let error as ImageError where error.kind == .link { (link, hasAgreed) = (nil, false) }
      guard let channel = try Self.visitor(listener, Self.lookMilliseconds) else { continue }
      if hasAgreed { return channel }
      guard let link = recognize(channel) else { continue }
      self.link = link
      hasAgreed = (try? link.put(.welcome(readsCompressed: readsCompressed))) != nil
    }
  }

  /// The connection, if it is our source's that was lost.
  private func recognize(_ channel: ByteChannel) -> MoveLink? {
    guard let link = try? MoveLink(channel, patience: patience),
      let message = try? link.take(within: Self.visitorMilliseconds)
    else { return nil }
    if case .move(let asked, _) = message, asked == identity { return link }
    if case .ask = message {
      try? link.put(.unknown)
    } else {
      try? link.put(
        .aborted(
          "memdump there waits for another migration that began before, whose link broke: end it, "
            + "or let its --reconnect time pass"))
    }
    return nil
  }

  private var patience: LinkPatience {
    let cancellation = cancellation
    return LinkPatience(silenceNanoseconds: options.receipt.linkTimeoutNanoseconds) {
      cancellation.isCancelled
    }
  }

  private func agree(with channel: ByteChannel, readsCompressed: Bool) throws {
    let link = try MoveLink(channel, patience: patience)
    do {
      guard case .move(let identity, let pid) = try link.take() else {
        throw MigrationError.peer("the source asks for something else than a migration")
      }
      if (try? TargetProcess(pid: pid)) != nil {
        throw MigrationError.peer(
          "there is a process \(pid) here already: a restored one gets its old number, so give it a "
            + "pid namespace of its own (unshare --pid --fork --mount-proc)")
      }
      (self.identity, self.pid) = (identity, pid)
    } catch {
      try? link.put(.aborted("\(MigrationError(error))"))
      throw error
    }
    self.link = link
    onEvent(.agreed(pid: pid))
    try link.put(.welcome(readsCompressed: readsCompressed))
  }

  /// Takes in what is not memory, while a CRIU starts that restores nothing before it has that.
  ///
  /// - Parameter whenComplete: called when everything is here.
  private func receiveState(whenComplete: () throws(MigrationError) -> Void) throws -> Restore {
    var restore = RestoreOptions(directory: options.receipt.imagesDirectory)
    restore.criu = options.criu
    restore.arguments = options.arguments
    restore.isLazy = options.isLazy
    let copy = try Restore(restore, isHeld: true)
    do {
      try receiveImages()
      onEvent(.restoring)
      try whenComplete()
    } catch {
      copy.cancel()
      throw error
    }
    return copy
  }

  private func receiveImages() throws {
    guard let link else { return }
    var state = try IncomingState(
      into: options.receipt.imagesDirectory, from: link.subject,
      byteLimit: options.receipt.byteLimit)
    guard state.targets.first?.pid == pid else {
      throw MigrationError.peer("the rounds are of another process than \(pid)")
    }
    while true {
      let message = try link.take()
      if case .aborted(let text) = message { throw MigrationError.refusedThere(text) }
      if try state.accept(message) { break }
    }
    try state.complete()
  }

  // MARK: From the copy on

  /// - Parameter strangers: who was here before.
  private func restore(
    _ copy: consuming Restore, _ strangers: Set<Int32>, _ listener: Listener,
    whenRunning: (RestoreSummary) -> Void
  ) throws -> RestoreSummary {
    do {
      return try copy.finish(
        RestoreSummary(),
        whileHeld: { summary in
          guard let link = self.link else { return }
          self.wasReady = true
          try link.put(
            .ready(
              prepareNanoseconds: summary.prepareNanoseconds,
              criuNanoseconds: summary.criuNanoseconds))
          self.onEvent(.ready)
          try self.awaitGo(link, listener)
        }, whenRunning: whenRunning)
    } catch {
      // CRIU kills what it restored, unless it is killed itself.
      let copies = HeldProcesses(Array(present().subtracting(strangers)))
      copies.kill()
      copies.awaitEnd()
      throw error
    }
  }

  /// Returns when the source says that the copy is to run.
  ///
  /// - Throws: if it says anything else, or nothing. Nobody but this side decides then: a `go` that
  ///   got lost is answered with `aborted` when the source asks.
  private func awaitGo(_ link: MoveLink, _ listener: Listener) throws {
    while true {
      switch try link.take(within: Self.lookMilliseconds) {
      case .go: return
      case .aborted(let text): throw MigrationError.refusedThere(text)
      case nil: break
      default: throw MigrationError.peer("\(link.subject) says what makes no sense")
      }
      if let channel = try Self.visitor(listener, 0), let asking = hear(channel) {
        question = asking
        throw ImageError(.link, file: link.subject, "the source lost this connection")
      }
    }
  }

  /// The processes of the rounds that are here.
  private func present() -> Set<Int32> {
    let pids = (try? ImageChain(options.receipt.imagesDirectory).processes()) ?? []
    return Set(pids.filter { (try? TargetProcess(pid: $0)) != nil })
  }

  /// Sees that the source hears the outcome.
  private func tell(_ outcome: MoveOutcome, _ listener: Listener) {
    let message: MoveMessage =
      switch outcome {
      case .running(let number): .running(pid: number ?? pid)
      case .aborted(let text): .aborted(text)
      }
    var current = question ?? link
    if (try? current?.put(message)) == nil { current = nil }
    // Before it heard of a copy the source decides by itself.
    guard wasReady else { return }
    let deadline = MonotonicClock.now + options.outcomePatienceNanoseconds
    var hasTold = false
    while MonotonicClock.now < deadline, !cancellation.isCancelled {
      if let link = current {
        do {
          if try link.take(within: Self.lookMilliseconds) == .settled { return }
        } catch { current = nil }
      } else if !hasTold {
        hasTold = true
        onEvent(.awaitingQuestion(outcome))
      }
      // It may give up on a connection before this side notices.
      guard
        let channel = try? Self.visitor(listener, current == nil ? 100 : 0),
        let asking = hear(channel), (try? asking.put(message)) != nil
      else { continue }
      current = asking
    }
  }

  /// Who comes within `milliseconds`, perhaps with a question.
  private static func visitor(_ listener: Listener, _ milliseconds: Int32) throws -> ByteChannel? {
    let arrival = try listener.accept(
      milliseconds: milliseconds, handshakeMilliseconds: visitorMilliseconds)
    if case .channel(let channel) = arrival { return channel }
    return nil
  }

  /// The connection, if it is our source's with its question.
  private func hear(_ channel: ByteChannel) -> MoveLink? {
    let cancellation = cancellation
    let patience = LinkPatience(silenceNanoseconds: Self.strangerNanoseconds) {
      cancellation.isCancelled
    }
    guard let link = try? MoveLink(channel, patience: patience),
      case .ask(let asked)? = try? link.take()
    else { return nil }
    if asked == identity { return link }
    try? link.put(.unknown)
    return nil
  }
}
