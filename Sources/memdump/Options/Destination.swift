internal import ArgumentParser
internal import Kernel

/// An option that names the other side of a transfer.
enum Destination {
  /// Reads `-`, `unix:PATH`, `tcp:HOST:PORT` or `tls:HOST:PORT`.
  static func parse(_ text: String) throws -> Endpoint {
    guard let endpoint = Endpoint(text) else {
      throw ValidationError(
        "must be -, unix:PATH, tcp:HOST:PORT or tls:HOST:PORT, such as tcp:[::1]:7000")
    }
    return endpoint
  }
}
