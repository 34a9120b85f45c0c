internal import ArgumentParser
internal import Kernel

/// An option that names the other side of a transfer.
enum Destination {
  /// Reads `-`, `unix:PATH` or `tcp:HOST:PORT`.
  static func parse(_ text: String) throws -> Endpoint {
    guard let endpoint = Endpoint(text) else {
      throw ValidationError("must be -, unix:PATH or tcp:HOST:PORT, such as tcp:[::1]:7000")
    }
    return endpoint
  }
}
