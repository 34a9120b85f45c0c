import Kernel
import Testing

@Suite(.serialized) struct BlockingQueueTests {
  @Test("elements come out in the order in which they went in")
  func order() {
    let queue = BlockingQueue<Int>()
    for number in 0..<5 { queue.put(number) }
    #expect((0..<5).map { _ in queue.take() } == [0, 1, 2, 3, 4])
  }

  @Test("a closed queue gives what it holds, then ends")
  func close() {
    let queue = BlockingQueue<Int>()
    queue.put(1)
    queue.close()
    #expect(queue.take() == 1)
    #expect(queue.take() == nil)
    #expect(queue.take() == nil)
  }

  @Test("takers that wait get every element once, and all end when it is closed")
  func manyThreads() throws {
    let numbers = BlockingQueue<Int>()
    let results = BlockingQueue<[Int]>()
    for _ in 0..<4 {
      _ = try OSThread(name: "taker") {
        var taken: [Int] = []
        while let number = numbers.take() { taken.append(number) }
        results.put(taken)
      }
    }
    for number in 0..<2_000 { numbers.put(number) }
    numbers.close()
    var all: [Int] = []
    for _ in 0..<4 {
      let taken = try #require(results.take())
      #expect(taken == taken.sorted())
      all += taken
    }
    #expect(all.sorted() == Array(0..<2_000))
  }

  @Test("what is in a queue that goes away goes away with it")
  func releases() {
    final class Token: Sendable {}
    weak var seen: Token?
    do {
      let queue = BlockingQueue<Token>()
      let token = Token()
      seen = token
      queue.put(token)
    }
    #expect(seen == nil)
  }
}
