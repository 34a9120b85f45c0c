internal import Images
internal import Kernel
internal import Predump
internal import Synchronization

/// The source's own connection to the destination, and all that goes over it before CRIU's dump.
///
/// Whichever of a migration's two connections breaks in the rounds, both are made anew, and begin as
/// they did first: under the same identity, so that the destination knows whose they are.
final class SourceLink: LinkCompanion {
  /// How long a connection may take.
  private static let connectMilliseconds: Int32 = 10_000
  /// How long the last word of one who gave up may be under way.
  private static let lastWordMilliseconds: Int32 = 500

  private struct State {
    var link: MoveLink?
    var refusal: ImageError?
  }

  private let options: MigrateOptions
  private let cancellation: Cancellation
  private let identity: MoveIdentity
  private let tls: TLSContext?
  private let state = Mutex(State())

  /// Connects to nobody yet.
  init(_ options: MigrateOptions, _ identity: MoveIdentity, _ cancellation: Cancellation) throws {
    guard options.destination != .standard else { throw Self.oneWay }
    self.options = options
    self.identity = identity
    self.cancellation = cancellation
    tls = try TLSContext.reading(options.predump.tls, isServer: false)
  }

  private static var oneWay: MigrationError {
    .peer("a migration takes two connections that go both ways: unix:PATH, tcp: or tls:HOST:PORT")
  }

  /// The connection; nil if there is none.
  var current: MoveLink? { state.withLock { $0.link } }

  /// Why the destination gave up in the rounds, if it has said so.
  var refusal: ImageError? { state.withLock { $0.refusal } }

  /// Agrees with the destination.
  ///
  /// - Returns: whether its CRIU reads LZ4.
  func connect() throws -> Bool {
    let cancellation = cancellation
    let channel: ByteChannel
    do throws(ChannelError) {
      channel = try options.destination.connect(
        milliseconds: Self.connectMilliseconds, tls: tls
      ) { cancellation.isCancelled }
    } catch { throw ImageError(error) }
    guard channel.hasInput else { throw Self.oneWay }
    let link = try MoveLink(
      channel,
      patience: LinkPatience(silenceNanoseconds: options.predump.linkTimeoutNanoseconds) {
        cancellation.isCancelled
      })
    try link.put(.move(identity, pid: options.predump.pid))
    let readsCompressed = try awaitWelcome(link)
    state.withLock { $0.link = link }
    return readsCompressed
  }

  private func awaitWelcome(_ link: MoveLink) throws -> Bool {
    do {
      switch try link.take() {
      case .welcome(let readsCompressed): return readsCompressed
      case .aborted(let text): throw MigrationError.refusedThere(text)
      default: throw MigrationError.peer("\(link.subject) answers what was not asked")
      }
    } catch let error as ImageError where error.kind == .stream || error.kind == .link {
      if cancellation.isCancelled { throw error }
      throw ImageError(
        .link, file: link.subject,
        "no memdump that restores answers there (\(error.message)); start it with "
          + "memdump receive --restore")
    }
  }

  // MARK: In the rounds

  func check() throws(ImageError) {
    guard let link = current else { throw gone }
    if let message = try link.take(within: 0) { throw answer(message, link) }
  }

  func reconnect() throws(ImageError) {
    if let link = current,
      case .aborted(let text)? = try? link.take(within: Self.lastWordMilliseconds)
    {
      throw gaveUp(text)
    }
    // The destination is to notice as soon as may be.
    state.withLock { $0.link = nil }
    do { _ = try connect() } catch {
      if case .refusedThere(let text)? = error as? MigrationError { throw gaveUp(text) }
      throw (error as? ImageError) ?? .link(options.destination.text, "\(MigrationError(error))")
    }
  }

  func settle() throws(ImageError) {
    guard let link = current else { throw gone }
    let message = try link.take()
    if message != .arrived { throw answer(message, link) }
  }

  /// CRIU dumps the process from now on: what breaks is not made anew any more.
  func beginDump() throws(ImageError) -> MoveLink {
    guard let link = current else { throw gone }
    try link.put(.dumping)
    return link
  }

  private var gone: ImageError {
    .link(options.destination.text, "the migration's own connection is gone")
  }

  /// What a message comes to that was not waited for.
  private func answer(_ message: MoveMessage, _ link: MoveLink) -> ImageError {
    if case .aborted(let text) = message { return gaveUp(text) }
    return ImageError(.stream, file: link.subject, "the destination answers what was not asked")
  }

  /// Nobody need try again.
  private func gaveUp(_ text: String) -> ImageError {
    let file = options.destination.text
    state.withLock { $0.refusal = .link(file, "the other side gave up: \(text)") }
    return ImageError(.stream, file: file, "the other side gave up: \(text)")
  }
}
