public import Images
public import Kernel

/// Receives a dump that `Predump.run` sends, and stores it as that would.
public enum ImageReceipt {
  /// What to receive, and where to.
  public struct Options: Sendable {
    /// Where the images go: created if absent, refused if not empty.
    public var imagesDirectory: String
    /// Where they come from; a Unix or TCP address is listened at, for one connection.
    public var source: Endpoint = .standard
    /// Who this side is to those who connect by TLS, and whom it believes.
    public var tls: TLSCredentials?
    /// Bytes that may be stored in all.
    public var byteLimit = UInt64.max
    /// How long the sender may be silent before the link counts as broken (ns).
    public var linkTimeoutNanoseconds: UInt64 = 30_000_000_000
    /// How long to wait for the sender to connect again after the link broke (ns); 0 ends the receipt
    /// then. With it the directory may also hold the complete rounds of a receipt that ended before
    /// its dump.
    public var reconnectNanoseconds: UInt64 = 0
    /// Whether a round survives a power cut once it is acknowledged.
    public var sync = true

    /// The defaults, into `imagesDirectory`.
    public init(imagesDirectory: String) { self.imagesDirectory = imagesDirectory }
  }

  /// What happens meanwhile.
  public enum Event: Sendable {
    /// The sender may connect; a TCP port is the real one.
    case listening(Endpoint)
    /// Somebody came who may not send, and went again; why.
    case refused(String)
    /// The sender is there.
    case connected
    /// The link broke, and why; the sender may connect again.
    case broken(String)
    /// A round is stored and checked.
    case round(name: String)
  }

  /// What was received.
  public struct Summary: Sendable {
    /// Directory names of the complete rounds, oldest first.
    public var rounds: [String]
    /// How the dump ended, by the sender's last word; nil if it said nothing.
    public var outcome: SessionOutcome?
  }

  /// Receives one dump. Blocks until it is over.
  ///
  /// Nothing that comes can make it write outside the directory, use more than a few MiB of memory
  /// besides what checking a round takes, or keep a round that is not whole and sound.
  ///
  /// - Throws: `PredumpError`: `.link` when the sender vanished, `.images` when what came is
  ///   damaged. Complete rounds are kept; without any, nothing is left.
  public static func run(
    _ options: Options, cancellation: Cancellation = Cancellation(), onEvent: (Event) -> Void
  ) throws(PredumpError) -> Summary {
    let door = try Door(options, cancellation)
    return try run(
      options, cancellation: cancellation, onEvent: onEvent,
      connect: { (broken) throws(PredumpError) in try door.next(broken, onEvent) })
  }

  /// A connection that broke.
  package struct Break {
    /// Why.
    package let failure: ImageError
    /// Until when to wait for the next one, by the monotonic clock (ns).
    package let deadline: UInt64

    package init(failure: ImageError, deadline: UInt64) {
      (self.failure, self.deadline) = (failure, deadline)
    }
  }

  /// As `run` above, over the connections that `connect` waits for.
  ///
  /// - Parameters:
  ///   - connect: called once the directory is ready, and when a connection broke.
  ///   - settle: called when the sender is done; if it throws kind `.link`, the connection counts as
  ///     broken.
  package static func run(
    _ options: Options, cancellation: Cancellation, onEvent: (Event) -> Void,
    connect: (Break?) throws(PredumpError) -> ByteChannel,
    settle: (SessionOutcome?) throws(ImageError) -> Void = { _ in }
  ) throws(PredumpError) -> Summary {
    let place = try Place(options)
    do throws(PredumpError) {
      let channel = try connect(nil)
      let receiver = ImageReceiver(
        from: channel, into: try place.session(from: channel.subject, options),
        patience: LinkPatience(silenceNanoseconds: options.linkTimeoutNanoseconds) {
          cancellation.isCancelled
        })
      defer { if receiver.rounds.isEmpty { place.removeEmpty() } }
      while true {
        let failure: ImageError
        do throws(ImageError) {
          let result = try receiver.run { onEvent(.round(name: $0)) }
          try settle(result.outcome)
          return Summary(rounds: result.rounds, outcome: result.outcome)
        } catch { failure = error }
        if failure.kind == .link, cancellation.isCancelled { throw .interrupted }
        // Who is no memdump does not end what others have begun.
        guard options.reconnectNanoseconds > 0, options.source != .standard,
          failure.kind == .link || !receiver.hasGreeted
        else { throw PredumpError(failure) }
        receiver.hangUp()
        onEvent(.broken("\(failure)"))
        let broken = Break(
          failure: failure, deadline: MonotonicClock.now + options.reconnectNanoseconds)
        receiver.resume(from: try connect(broken))
      }
    } catch {
      if !place.isTaken { place.removeEmpty() }
      throw error
    }
  }

  /// The directory, and whether it was made for this.
  private final class Place {
    private let path: String
    private let wasCreated: Bool
    private let resumes: Bool
    private var directory: Directory?
    /// Whether a session stores into it.
    private(set) var isTaken = false

    init(_ options: Options) throws(PredumpError) {
      let path = options.imagesDirectory
      let resumes = options.reconnectNanoseconds > 0 && ImagesDirectory.holdsSession(path)
      let prepared = try ImagesDirectory.prepare(path, goesOn: resumes)
      wasCreated = prepared.wasCreated
      directory = prepared.take()
      (self.path, self.resumes) = (path, resumes)
    }

    func session(from subject: String, _ options: Options) throws(PredumpError) -> IncomingSession {
      guard let directory = directory.take() else {
        throw .imagesDirectory(path: path, reason: "it is in use")
      }
      isTaken = true
      if !resumes {
        return IncomingSession(
          into: directory, from: subject, sync: options.sync, byteLimit: options.byteLimit)
      }
      do throws(ImageError) {
        return try IncomingSession(
          resuming: directory, from: subject, sync: options.sync, byteLimit: options.byteLimit)
      } catch { throw PredumpError(error) }
    }

    /// Removes what was made, if no round is in it.
    func removeEmpty() {
      if resumes { return }
      ImagesDirectory.removeEmpty(path, wasCreated: wasCreated)
    }
  }

  /// Where the sender comes in.
  private final class Door {
    private let listener: Listener?
    private let cancellation: Cancellation

    init(_ options: Options, _ cancellation: Cancellation) throws(PredumpError) {
      self.cancellation = cancellation
      if options.source == .standard {
        listener = nil
        return
      }
      do throws(ChannelError) {
        let tls = try TLSContext.reading(options.tls, isServer: true)
        // A receiver that died left its socket where its successor is to listen.
        listener = try Listener(
          options.source, tls: tls, replacesStale: options.reconnectNanoseconds > 0)
      } catch { throw .link(ImageError(error)) }
    }

    /// The next connection.
    func next(_ broken: Break?, _ onEvent: (Event) -> Void) throws(PredumpError) -> ByteChannel {
      do throws(ChannelError) {
        guard let listener else {
          let channel = try ByteChannel.standard(sending: false)
          onEvent(.connected)
          return channel
        }
        if broken == nil { onEvent(.listening(listener.endpoint)) }
        while !cancellation.isCancelled {
          if let broken, MonotonicClock.now >= broken.deadline { break }
          switch try listener.accept(milliseconds: 100, isCancelled: { cancellation.isCancelled }) {
          case .nobody: break
          case .refused(let error): onEvent(.refused("\(error)"))
          case .channel(let channel):
            onEvent(.connected)
            return channel
          }
        }
      } catch { throw .link(ImageError(error)) }
      if let broken, !cancellation.isCancelled { throw PredumpError(broken.failure) }
      throw .interrupted
    }
  }
}
