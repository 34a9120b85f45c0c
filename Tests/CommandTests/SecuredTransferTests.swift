import Foundation
import Kernel
import TestSupport
import Testing

/// Dumps that go over TLS: who is let in, and who is told what.
@Suite(.serialized) struct SecuredTransferTests {
  private let scratch: TemporaryDirectory
  private let workload: Workload
  private let ours: Certificates
  private let theirs: Certificates
  private var received: String { scratch.file("received") }

  init() throws {
    scratch = try TemporaryDirectory()
    workload = try Workload("stamp", ["pages=256", "rate=200"])
    ours = try Certificates(in: scratch.file(""), authority: "ours")
    theirs = try Certificates(in: scratch.file(""), authority: "theirs")
    for name in ["sender", "receiver"] { try ours.sign(name) }
  }

  private func receiver(_ options: [String], scheme: String = "tls") throws -> (Memdump, String) {
    let receiver = try Memdump(
      ["receive", "--images-dir", received, "--from", "\(scheme):127.0.0.1:0", "--json"]
        + ["--no-sync"] + options)
    let listening = try #require(try receiver.wait(for: "listening"))
    return (receiver, try #require(listening["at"] as String?))
  }

  private func send(to place: String, _ options: [String]) throws -> Memdump.Outcome {
    try Memdump.run(
      [
        "predump", "--pid", "\(workload.pid)", "--to", place, "--leave", "stopped", "--no-sync",
        "--quiet",
      ] + options)
  }

  /// Expects that `receiver` turns somebody away and still takes the right one.
  private func expectRefusal(
    by receiver: Memdump, at place: String, saying words: String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let warning = try #require(try receiver.wait(for: "warning"), sourceLocation: sourceLocation)
    let message: String = try #require(warning["message"], sourceLocation: sourceLocation)
    #expect(message.contains(words), "\(message)", sourceLocation: sourceLocation)
    try expectDump(to: place, from: receiver, ours.options("sender"), sourceLocation)
  }

  private func expectDump(
    to place: String, from receiver: Memdump, _ options: [String],
    _ sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let outcome = try send(to: place, options)
    #expect([0, 3].contains(outcome.status), "\(outcome.err)", sourceLocation: sourceLocation)
    #expect(try receiver.finish().status == 0, sourceLocation: sourceLocation)
    let check = try Memdump.run(["restore-check", "--pid", "\(workload.pid)", received])
    #expect(check.status == 0, "\(check.out) \(check.err)", sourceLocation: sourceLocation)
    kill(workload.pid, SIGCONT)
  }

  @Test("both sides show who they are, and the dump arrives") func good() throws {
    let (receiver, place) = try receiver(ours.options("receiver") + ["--tls-name", "127.0.0.1"])
    try expectDump(to: place, from: receiver, ours.options("sender"))
  }

  @Test("a sender that another authority has signed is turned away") func unknownSender() throws {
    try theirs.sign("sender")
    let (receiver, place) = try receiver(ours.options("receiver"))
    let outcome = try send(to: place, theirs.options("sender", authority: ours.authority))
    CommandTests.expectRefusal(outcome, 27, saying: "does not accept this one")
    expectFree(workload.pid)
    try expectRefusal(by: receiver, at: place, saying: "certificate is not accepted")
  }

  @Test("a receiver that another authority has signed is not trusted") func unknownReceiver()
    throws
  {
    try theirs.sign("receiver")
    let (receiver, place) = try receiver(
      theirs.options("receiver", authority: ours.authority))
    let outcome = try send(to: place, ours.options("sender"))
    CommandTests.expectRefusal(outcome, 27, saying: "certificate is not accepted: unable to get")
    let warning = try #require(try receiver.wait(for: "warning"))
    #expect(try #require(warning["message"] as String?).contains("does not accept this one"))
    expectFree(workload.pid)
  }

  @Test("a receiver of another name is not trusted, unless that name is asked for")
  func wrongName() throws {
    try ours.sign("elsewhere", for: "DNS:elsewhere.example")
    let (receiver, place) = try receiver(ours.options("elsewhere"))
    let outcome = try send(to: place, ours.options("sender"))
    CommandTests.expectRefusal(outcome, 27, saying: "IP address mismatch")
    let other = try send(to: place, ours.options("sender") + ["--tls-name", "other.example"])
    CommandTests.expectRefusal(other, 27, saying: "hostname mismatch")
    try expectDump(
      to: place, from: receiver, ours.options("sender") + ["--tls-name", "elsewhere.example"])
  }

  @Test("a receiver may want one sender and no other") func wantedSender() throws {
    try ours.sign("wanted", for: "DNS:wanted.example")
    let (receiver, place) = try receiver(
      ours.options("receiver") + ["--tls-name", "wanted.example"])
    CommandTests.expectRefusal(
      try send(to: place, ours.options("sender")), 27, saying: "does not accept this one")
    let warning = try #require(try receiver.wait(for: "warning"))
    #expect(try #require(warning["message"] as String?).contains("hostname mismatch"))
    try expectDump(to: place, from: receiver, ours.options("wanted"))
  }

  @Test("strangers with an old certificate, or none, are turned away", arguments: [true, false])
  func strangers(hasOld: Bool) throws {
    try ours.sign("old", days: -1)
    let (receiver, place) = try receiver(ours.options("receiver"))
    let shown =
      hasOld ? " -cert \(ours.file("old.pem")) -key \(ours.file("old.key"))" : ""
    let stranger = try ChildProgram(
      "/bin/sh",
      ["-c", "exec openssl s_client -connect ${0#tls:}\(shown) </dev/null 2>&1", place],
      lifetime: 20)
    while stranger.readLine() != nil {}
    try expectRefusal(
      by: receiver, at: place,
      saying: hasOld ? "certificate has expired" : "peer did not return a certificate")
  }

  @Test("who does not speak TLS is told so, on either side") func plain() throws {
    let (receiver, place) = try receiver(ours.options("receiver"))
    let outcome = try send(to: place.replacingOccurrences(of: "tls:", with: "tcp:"), [])
    CommandTests.expectRefusal(outcome, 27)
    try expectRefusal(by: receiver, at: place, saying: "does the other side speak TLS")
  }

  @Test("TLS to a receiver without it ends both") func plainReceiver() throws {
    let (receiver, place) = try receiver([], scheme: "tcp")
    let outcome = try send(
      to: place.replacingOccurrences(of: "tcp:", with: "tls:"), ours.options("sender"))
    CommandTests.expectRefusal(outcome, 27, saying: "speak TLS")
    CommandTests.expectRefusal(try receiver.finish(), 12, saying: "no frame begins with")
    expectFree(workload.pid)
  }

  @Test("a receiver that says nothing does not hold the dump for ever") func silent() throws {
    let mute = try Listener(.tcp(host: "127.0.0.1", port: 0))
    let outcome = try send(
      to: mute.endpoint.text.replacingOccurrences(of: "tcp:", with: "tls:"),
      ours.options("sender"))
    CommandTests.expectRefusal(outcome, 27, saying: "no TLS handshake within")
    expectFree(workload.pid)
    withExtendedLifetime(mute) {}
  }

  @Test("files that do not do are named, with what is wrong with them") func files() throws {
    try ours.sign("old", days: -1)
    try ours.protect("sender", as: "locked.key")
    let cases: [(option: String, file: String, words: String)] = [
      ("--tls-certificate", ours.file("nothing"), "No such file"),
      ("--tls-certificate", ours.file("sender.key"), "no certificate in PEM form"),
      ("--tls-certificate", ours.file("old.pem"), "has expired"),
      ("--tls-key", ours.file("nothing"), "No such file"),
      ("--tls-key", ours.file("receiver.key"), "not the key of the certificate"),
      ("--tls-key", ours.file("sender.pem"), "no private key in PEM form"),
      ("--tls-key", ours.file("locked.key"), "protected by a password"),
      ("--tls-ca", ours.file("nothing"), "No such file"),
      ("--tls-ca", ours.file("ca.key"), "no certificate in PEM form"),
    ]
    for item in cases {
      var options = ours.options("sender")
      options[try #require(options.firstIndex(of: item.option)) + 1] = item.file
      let outcome = try send(to: "tls:127.0.0.1:1", options)
      CommandTests.expectRefusal(outcome, 27, saying: item.words)
      CommandTests.expectRefusal(outcome, 27, saying: item.file)
      let taker = try Memdump.run(
        ["receive", "--images-dir", received, "--from", "tls:127.0.0.1:0"] + options)
      CommandTests.expectRefusal(taker, 27, saying: item.words)
      #expect(!FileManager.default.fileExists(atPath: received))
    }
    expectFree(workload.pid)
  }

  @Test("certificates go with tls: and nothing else") func usage() throws {
    CommandTests.expectRefusal(
      try send(to: "tls:127.0.0.1:1", []), 64, saying: "--tls-certificate")
    CommandTests.expectRefusal(
      try send(to: "tcp:127.0.0.1:1", ours.options("sender")), 64, saying: "tls:HOST:PORT")
  }
}
