import Foundation
import Images
import Kernel
import Synchronization
import TestSupport
import Testing

@testable import Predump

/// A last round that the receiver has, and whose process ran on all the same, since the link broke
/// before that was known: what the process has given up since must not come from that round.
@Suite(.serialized) struct LostFreezeTests {
  /// Fails once, when all rounds have arrived.
  private final class Breaking: LinkCompanion {
    private let isOver = Mutex(false)

    func check() {}
    func reconnect() {}
    func settle() throws(ImageError) {
      let isFirst = isOver.withLock { isOver in
        defer { isOver = true }
        return !isOver
      }
      if isFirst { throw ImageError(.link, file: "test", "broken") }
    }
  }

  private static let pages = 256

  /// Receives on a thread of its own, and ends the first connection when all rounds have arrived.
  private func receive(_ endpoint: Endpoint, into path: String) throws -> OSThread {
    var options = ImageReceipt.Options(imagesDirectory: path)
    options.source = endpoint
    options.sync = false
    options.reconnectNanoseconds = 30_000_000_000
    let received = options
    let listener = try Listener(endpoint, tls: nil, replacesStale: true)
    return try OSThread(name: "test-receive") {
      let companion = Breaking()
      do throws(PredumpError) {
        _ = try ImageReceipt.run(
          received, cancellation: Cancellation(), onEvent: { _ in },
          connect: { (_) throws(PredumpError) in
            do throws(ChannelError) {
              while true {
                if case .channel(let channel) = try listener.accept(milliseconds: 100) {
                  return channel
                }
              }
            } catch { throw .link(ImageError(error)) }
          },
          settle: { (_) throws(ImageError) in try companion.settle() })
      } catch { Issue.record("\(error)") }
    }
  }

  @Test("pages that only a lost freeze saw are not stored again, and are holes if given up")
  func seenOnce() throws {
    let scratch = try TemporaryDirectory()
    let path = scratch.file("images")
    let endpoint = Endpoint.unix(path: scratch.file("socket"))
    let receiver = try receive(endpoint, into: path)
    let workload = try Workload("shared", ["pages=\(Self.pages)"])
    defer { workload.program.end() }
    @Sendable func order(_ commands: [String]) {
      for command in commands {
        workload.program.send(command)
        #expect(workload.program.readLine() == "ok", "\(command)")
      }
    }
    order(["drop 10 50", "punch 10 50"])
    var options = PredumpOptions(pid: workload.pid, destination: endpoint)
    options.leadToMove(to: endpoint, with: Breaking())
    options.reconnectNanoseconds = 30_000_000_000
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.thresholdPages = 0
    options.policy.minShrinkPercent = 0
    options.policy.maxRounds = 1
    let freezes = Mutex(0)
    let summary = try Predump.run(options) { event in
      switch event {
      case .freezePredicted:
        if freezes.withLock({
          $0 += 1; return $0
        }) == 1 {
          order(["private 20 29 1", "object 20 29 1"])
        }
      case .warning(let text) where text.contains("trying to reach"):
        order(["drop 20 9", "punch 20 9"])
      default: break
      }
    }
    receiver.join()
    #expect(freezes.withLock { $0 } == 2)
    #expect(summary.rounds.filter { $0.kind == .frozen }.count == 2)
    // Of 20 pages of each kind the round that was lost has the bytes.
    #expect(summary.rounds[2].totals.pagesStored < 20, "\(summary.rounds[2])")
    #expect(ChainVerifier.verify(path).verdict == .restorable)
    let live = try LiveComparison.run(directory: path, pid: workload.pid)
    #expect(live.isEqual, "\(live)")
  }
}
