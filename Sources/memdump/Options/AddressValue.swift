internal import ArgumentParser
internal import Migration

/// An address option: `unix:PATH`, `HOST:PORT` or `:PORT`.
enum AddressValue {
  /// Reads an address.
  static let parser: @Sendable (String) throws -> ServerAddress = { text in
    if text.hasPrefix("unix:"), text.count > 5 { return .local(path: String(text.dropFirst(5))) }
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...])
    else { throw ValidationError("an address is unix:PATH, HOST:PORT or :PORT") }
    // An IPv6 address stands in brackets.
    var host = text[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
    return .tcp(host: String(host), port: port)
  }
}
