import Images
import Synchronization
import Testing

@testable import Predump

struct EventOrderTests {
  private final class Log: Sendable {
    let lines = Mutex<[String]>([])
    let publishedAt = Mutex<UInt64?>(nil)

    func note(_ event: PredumpEvent) {
      let line =
        switch event {
        case .warning(let text): text
        case .roundFinished(let round): "round \(round.index) in \(round.wallNanoseconds)"
        case .progress(let progress): "progress \(progress.round)"
        default: "?"
        }
      lines.withLock { $0.append(line) }
    }
  }

  private let log = Log()
  private let order: EventOrder

  init() {
    let log = log
    order = EventOrder { log.note($0) }
  }

  private var lines: [String] { log.lines.withLock { $0 } }

  private func holdRound() {
    let log = log
    let report = RoundReport(
      index: 1, name: "round-001", kind: .live, waitingPages: 0, unchangedPages: 0,
      copyNanoseconds: 0, scanStopNanoseconds: 0)
    order.hold(report, began: 100) { log.publishedAt.withLock { $0 } }
  }

  private func progress() { order.emit(.progress(.init(round: 2, pagesDone: 0, pagesExpected: 1))) }

  @Test("without a round that is held, events are told at once")
  func direct() {
    order.emit(.warning("a"))
    progress()
    #expect(lines == ["a", "progress 2"])
  }

  @Test("what happens while a round is not durable is told after it; of progress nothing is")
  func held() {
    holdRound()
    order.emit(.warning("a"))
    progress()
    #expect(lines.isEmpty)
    log.publishedAt.withLock { $0 = 150 }
    progress()
    #expect(lines == ["round 1 in 50", "a", "progress 2"])
    order.settle()
    #expect(lines.count == 3)
  }

  @Test("at the latest they are told when it is settled, also if the round came to nothing")
  func settled() {
    holdRound()
    order.emit(.warning("a"))
    order.settle()
    #expect(lines == ["a"])
    holdRound()
    log.publishedAt.withLock { $0 = 150 }
    order.settle()
    #expect(lines == ["a", "round 1 in 50"])
  }
}
