internal import Images
internal import Kernel

/// The link that a dump's rounds go over.
enum DumpLink {
  /// How long a connection may take (ms).
  private static let connectMilliseconds: Int32 = 10_000
  /// Between two attempts to connect again (ns).
  private static let pauseNanoseconds: UInt64 = 200_000_000

  /// Connects to where `options` say and greets the receiver; nil if they name no destination.
  static func connect(
    _ options: PredumpOptions, _ cancellation: Cancellation, _ onEvent: (PredumpEvent) -> Void
  ) throws(PredumpError) -> ImageLink? {
    guard let destination = options.destination else { return nil }
    do throws(ImageError) {
      let tls: TLSContext?
      do throws(ChannelError) {
        tls = try TLSContext.reading(options.tls, isServer: false)
      } catch { throw ImageError(error) }
      let dial: @Sendable () throws(ImageError) -> ByteChannel = { () throws(ImageError) in
        do throws(ChannelError) {
          return try destination.connect(milliseconds: connectMilliseconds, tls: tls) {
            cancellation.isCancelled
          }
        } catch { throw ImageError(error) }
      }
      let patience = LinkPatience(silenceNanoseconds: options.linkTimeoutNanoseconds) {
        cancellation.isCancelled
      }
      let companion = options.companion
      let redial: @Sendable () throws(ImageError) -> ByteChannel = { () throws(ImageError) in
        try companion?.reconnect()
        return try dial()
      }
      do throws(ImageError) {
        return try ImageLink(try dial(), patience: patience, redial: redial)
      } catch {
        // The receiver was there, and waits.
        guard companion != nil, options.reconnectNanoseconds > 0, error.kind == .link else {
          throw error
        }
        onEvent(.warning("\(error); trying to reach the receiver again"))
        return try again(options, cancellation) { () throws(ImageError) in
          try ImageLink(try redial(), patience: patience, redial: redial)
        }
      }
    } catch {
      if cancellation.isCancelled { throw .interrupted }
      // Nothing is wrong with images: they are not ours.
      throw error.kind == .session ? .link(.link(error.file, error.message)) : PredumpError(error)
    }
  }

  /// Connects again after the link broke, for as long as `options` say.
  ///
  /// - Returns: how many rounds the receiver has.
  /// - Throws: why the last attempt failed.
  static func reconnect(
    _ link: ImageLink, _ options: PredumpOptions, _ cancellation: Cancellation
  ) throws(PredumpError) -> Int {
    do throws(ImageError) {
      return try again(options, cancellation) { () throws(ImageError) in try link.reconnect() }
    } catch {
      if cancellation.isCancelled { throw .interrupted }
      throw PredumpError(error)
    }
  }

  /// Tries to connect until that succeeds, cannot succeed any more, or the time is over.
  private static func again<Value>(
    _ options: PredumpOptions, _ cancellation: Cancellation,
    _ connect: () throws(ImageError) -> Value
  ) throws(ImageError) -> Value {
    let deadline = MonotonicClock.now + options.reconnectNanoseconds
    while true {
      do throws(ImageError) { return try connect() } catch {
        guard error.kind == .link, MonotonicClock.now < deadline, !cancellation.isCancelled else {
          throw error
        }
      }
      Throttle.wait(until: MonotonicClock.now + pauseNanoseconds, cancellation)
    }
  }
}
