internal import Foundation

/// An authority and what it has signed, made by the openssl program.
package struct Certificates {
  /// The openssl program could not.
  package struct Failure: Error { let output: String }

  private let directory: String

  /// Makes the authority `name` in `directory`.
  package init(in directory: String, authority name: String) throws {
    self.directory = "\(directory)/\(name)"
    try FileManager.default.createDirectory(
      atPath: self.directory, withIntermediateDirectories: false)
    try run("req -x509 -nodes -days 2 -subj /CN=\(name) -keyout ca.key -out ca.pem \(Self.curve)")
  }

  private static let curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1"

  /// The authority's own certificate.
  package var authority: String { file("ca.pem") }

  /// The path of a file of these.
  package func file(_ name: String) -> String { "\(directory)/\(name)" }

  /// Signs `name.pem` for `name.key`.
  ///
  /// - Parameters:
  ///   - alternative: the names that it is for, in OpenSSL's words.
  ///   - days: how long it is valid; negative if it no longer is.
  package func sign(_ name: String, for alternative: String = "IP:127.0.0.1", days: Int = 2) throws
  {
    try "subjectAltName=\(alternative)".write(
      toFile: file("extensions"), atomically: false, encoding: .utf8)
    try run("req -nodes -subj /CN=\(name) -keyout \(name).key -out \(name).csr \(Self.curve)")
    try run(
      "x509 -req -in \(name).csr -CA ca.pem -CAkey ca.key -CAcreateserial -out \(name).pem "
        + "-days \(days) -extfile extensions")
  }

  /// Writes `name.key` once more, protected by a password.
  package func protect(_ name: String, as other: String) throws {
    try run("pkey -in \(name).key -aes128 -passout pass:secret -out \(other)")
  }

  /// The options of a side that is `name`, and believes `authority`.
  package func options(_ name: String, authority: String? = nil) -> [String] {
    [
      "--tls-certificate", file("\(name).pem"), "--tls-key", file("\(name).key"), "--tls-ca",
      authority ?? self.authority,
    ]
  }

  private func run(_ arguments: String) throws {
    let program = try ChildProgram(
      "/bin/sh", ["-c", "cd \"$0\" && exec openssl \(arguments) 2>&1", directory], lifetime: 30)
    var output = ""
    while let line = program.readLine() { output += line }
    if program.wait() != 0 {
      throw Failure(output: output)
    }
  }
}
