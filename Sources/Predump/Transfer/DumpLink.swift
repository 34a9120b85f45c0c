internal import Images
internal import Kernel

/// The link that a dump's rounds go over.
enum DumpLink {
  /// How long a connection may take (ms).
  private static let connectMilliseconds: Int32 = 10_000

  /// Connects to where `options` say and greets the receiver; nil if they name no destination.
  static func connect(_ options: PredumpOptions, _ cancellation: Cancellation)
    throws(PredumpError) -> ImageLink?
  {
    guard let destination = options.destination else { return nil }
    let channel: ByteChannel
    do throws(KernelError) {
      channel = try destination.connect(milliseconds: connectMilliseconds)
    } catch { throw .link(ImageError(.link, file: destination.text, "\(error)", cause: error)) }
    let patience = LinkPatience(silenceNanoseconds: options.linkTimeoutNanoseconds) {
      cancellation.isCancelled
    }
    do throws(ImageError) { return try ImageLink(channel, patience: patience) } catch {
      if cancellation.isCancelled { throw .interrupted }
      throw PredumpError(error)
    }
  }
}
