import Kernel
import Testing

@Suite(.serialized) struct TrackingSelfTestTests {
  @Test("this machine's kernel tracks writes as a dump needs it")
  func passesHere() {
    let results = TrackingSelfTest.run()
    #expect(results.count == 13)
    for result in results { #expect(result.passed, "\(result)") }
  }

  @Test("the self-test leaves this process's memory as it was")
  func leavesNothing() throws {
    _ = TrackingSelfTest.run()
    let before = try ThisThread.maps().filter { $0.inode == 0 }.reduce(0) {
      $0 + $1.range.byteCount
    }
    for _ in 0..<20 { _ = TrackingSelfTest.run() }
    let after = try ThisThread.maps().filter { $0.inode == 0 }.reduce(0) { $0 + $1.range.byteCount }
    // Each run maps more than 8 MiB: one run's leak would be seen, the allocator's growth not.
    #expect(after < before + (8 << 20))
  }
}
