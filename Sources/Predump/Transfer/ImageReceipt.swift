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
    /// Bytes that may be stored in all.
    public var byteLimit = UInt64.max
    /// How long the sender may be silent before the link counts as broken (ns).
    public var linkTimeoutNanoseconds: UInt64 = 30_000_000_000
    /// Whether a round survives a power cut once it is acknowledged.
    public var sync = true

    /// The defaults, into `imagesDirectory`.
    public init(imagesDirectory: String) { self.imagesDirectory = imagesDirectory }
  }

  /// What happens meanwhile.
  public enum Event: Sendable {
    /// The sender may connect; a TCP port is the real one.
    case listening(Endpoint)
    /// The sender is there.
    case connected
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
    try run(options, cancellation: cancellation, onEvent: onEvent) {
      () throws(PredumpError) in try connect(options.source, cancellation, onEvent)
    }
  }

  /// As `run` above, over the connection that `connect` waits for once the directory is ready.
  package static func run(
    _ options: Options, cancellation: Cancellation, onEvent: (Event) -> Void,
    connect: () throws(PredumpError) -> ByteChannel
  ) throws(PredumpError) -> Summary {
    let prepared = try ImagesDirectory.prepareEmpty(options.imagesDirectory)
    let wasCreated = prepared.wasCreated
    let channel: ByteChannel
    do throws(PredumpError) {
      channel = try connect()
    } catch {
      ImagesDirectory.removeEmpty(options.imagesDirectory, wasCreated: wasCreated)
      throw error
    }
    let receiver = ImageReceiver(
      from: channel,
      into: IncomingSession(
        into: prepared.take(), from: channel.subject, sync: options.sync,
        byteLimit: options.byteLimit),
      patience: LinkPatience(silenceNanoseconds: options.linkTimeoutNanoseconds) {
        cancellation.isCancelled
      })
    let result: ImageReceiver.Result
    do throws(ImageError) {
      result = try receiver.run { onEvent(.round(name: $0)) }
    } catch {
      if receiver.rounds.isEmpty {
        ImagesDirectory.removeEmpty(options.imagesDirectory, wasCreated: wasCreated)
      }
      if error.kind == .link, cancellation.isCancelled { throw .interrupted }
      throw PredumpError(error)
    }
    if result.rounds.isEmpty {
      ImagesDirectory.removeEmpty(options.imagesDirectory, wasCreated: wasCreated)
    }
    return Summary(rounds: result.rounds, outcome: result.outcome)
  }

  private static func connect(
    _ source: Endpoint, _ cancellation: Cancellation, _ onEvent: (Event) -> Void
  ) throws(PredumpError) -> ByteChannel {
    do throws(KernelError) {
      if source == .standard {
        let channel = try ByteChannel.standard(sending: false)
        onEvent(.connected)
        return channel
      }
      let listener = try Listener(source)
      onEvent(.listening(listener.endpoint))
      while !cancellation.isCancelled {
        if let channel = try listener.accept(milliseconds: 100) {
          onEvent(.connected)
          return channel
        }
      }
    } catch { throw .link(ImageError(.link, file: source.text, "\(error)", cause: error)) }
    throw .interrupted
  }
}
