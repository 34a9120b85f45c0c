internal import Images
internal import Kernel

/// The link that a dump's rounds go over.
enum DumpLink {
  /// How long a connection may take (ms).
  private static let connectMilliseconds: Int32 = 10_000
  /// Between two attempts to connect again (ns).
  private static let pauseNanoseconds: UInt64 = 200_000_000

  /// Connects to where `options` say and greets the receiver; nil if they name no destination.
  static func connect(_ options: PredumpOptions, _ cancellation: Cancellation)
    throws(PredumpError) -> ImageLink?
  {
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
      return try ImageLink(try dial(), patience: patience, redial: dial)
    } catch {
      if cancellation.isCancelled { throw .interrupted }
      throw PredumpError(error)
    }
  }

  /// Connects again after the link broke, for as long as `options` say.
  ///
  /// - Returns: how many rounds the receiver has.
  /// - Throws: why the last attempt failed.
  static func reconnect(
    _ link: ImageLink, _ options: PredumpOptions, _ cancellation: Cancellation
  ) throws(PredumpError) -> Int {
    let deadline = MonotonicClock.now + options.reconnectNanoseconds
    while true {
      do throws(ImageError) { return try link.reconnect() } catch {
        if cancellation.isCancelled { throw .interrupted }
        guard error.kind == .link, MonotonicClock.now < deadline else { throw PredumpError(error) }
      }
      Throttle.wait(until: MonotonicClock.now + pauseNanoseconds, cancellation)
    }
  }
}
