import Testing

@testable import Predump

struct FreezeEstimateTests {
  @Test("before anything was measured, more of anything takes longer")
  func monotonic() {
    let estimate = FreezeEstimate()
    let base = estimate.nanoseconds(pages: 1_000, reads: 10, threads: 4)
    #expect(estimate.nanoseconds(pages: 2_000, reads: 10, threads: 4) > base)
    #expect(estimate.nanoseconds(pages: 1_000, reads: 20, threads: 4) > base)
    #expect(estimate.nanoseconds(pages: 1_000, reads: 10, threads: 5) > base)
    #expect(estimate.nanoseconds(pages: 0, reads: 0, threads: 1) > 0)
  }

  @Test("a measured copy sets the rate")
  func rate() {
    var estimate = FreezeEstimate()
    let fixed = estimate.nanoseconds(pages: 0, reads: 0, threads: 1)
    // 1 byte a nanosecond, when the reads' own cost is taken off.
    estimate.observeCopy(bytes: 1 << 30, reads: 1_000, nanoseconds: (1 << 30) + 1_200_000)
    #expect(estimate.nanoseconds(pages: 256, reads: 0, threads: 1) - fixed == 1 << 20)
    // The mean of the old rate and of 3 bytes a nanosecond: 2.
    estimate.observeCopy(bytes: 3 << 30, reads: 0, nanoseconds: 1 << 30)
    #expect(estimate.nanoseconds(pages: 512, reads: 0, threads: 1) - fixed == 1 << 20)
  }

  @Test("shared memory that is compared costs what comparing it did") func comparison() {
    var estimate = FreezeEstimate()
    let fixed = estimate.nanoseconds(pages: 0, reads: 0, threads: 1)
    #expect(estimate.nanoseconds(pages: 0, reads: 0, threads: 1, comparedPages: 1 << 18) > fixed)
    estimate.observeComparison(bytes: 4096, nanoseconds: 1)
    #expect(estimate == FreezeEstimate())
    estimate.observeComparison(bytes: 8 << 30, nanoseconds: 1 << 30)
    #expect(
      estimate.nanoseconds(pages: 0, reads: 0, threads: 1, comparedPages: 1 << 18) - fixed
        == 1 << 27)
  }

  @Test("a copy that was rehearsed corrects what scattered pages cost, within limits")
  func rehearsal() {
    var estimate = FreezeEstimate()
    func copying() -> Double {
      Double(estimate.nanoseconds(pages: 10_000, reads: 10_000, threads: 1))
        - Double(estimate.nanoseconds(pages: 0, reads: 0, threads: 1))
    }
    let known = copying()
    let inTime = estimate.pages(in: 1_000_000)
    estimate.observeRehearsal(pages: 256, nanoseconds: UInt64(known * 256 / 10_000 * 2))
    #expect(abs(copying() / known - 2) < 0.01)
    #expect(estimate.pages(in: 2_000_000).distance(to: inTime).magnitude < 5)
    estimate.observeRehearsal(pages: 256, nanoseconds: .max)
    #expect(copying() / known < 9)
    estimate.observeRehearsal(pages: 256, nanoseconds: 0)
    #expect(copying() / known > 0.4)
    // A few reads are one thread's, and were not rehearsed.
    let few = estimate.nanoseconds(pages: 10, reads: 10, threads: 1)
    #expect(few == FreezeEstimate().nanoseconds(pages: 10, reads: 10, threads: 1))
  }

  @Test("the scan is in it once, the last one")
  func scan() {
    var estimate = FreezeEstimate()
    let before = estimate.nanoseconds(pages: 8, reads: 1, threads: 1)
    estimate.observeScan(nanoseconds: 9_000_000)
    estimate.observeScan(nanoseconds: 5_000_000)
    #expect(estimate.nanoseconds(pages: 8, reads: 1, threads: 1) - before == 5_000_000)
  }

  @Test("copies that tell nothing change nothing")
  func uselessSamples() {
    var estimate = FreezeEstimate()
    estimate.observeCopy(bytes: 4096, reads: 1, nanoseconds: 1)
    estimate.observeCopy(bytes: 1 << 30, reads: .max, nanoseconds: 1)
    estimate.observeCopy(bytes: 1 << 30, reads: 0, nanoseconds: 0)
    #expect(estimate == FreezeEstimate())
  }

  @Test("a rate too good to be true is not believed")
  func capped() {
    var estimate = FreezeEstimate()
    estimate.observeCopy(bytes: 1 << 40, reads: 0, nanoseconds: 1)
    let fixed = estimate.nanoseconds(pages: 0, reads: 0, threads: 1)
    #expect(estimate.nanoseconds(pages: 1 << 20, reads: 0, threads: 1) - fixed > 200_000_000)
  }

  @Test("the largest process there can be is still a number")
  func large() {
    // 2^47 bytes of address space in 2^35 pages, each a read of its own; 2^22 threads.
    let estimate = FreezeEstimate()
    #expect(estimate.nanoseconds(pages: 1 << 35, reads: 1 << 35, threads: 1 << 22) > 0)
  }

  @Test("several threads shorten the copy of many runs, and nothing else") func threads() {
    var estimate = FreezeEstimate()
    let few = estimate.nanoseconds(pages: 32, reads: 32, threads: 1)
    let many = estimate.nanoseconds(pages: 30_000, reads: 30_000, threads: 1)
    estimate.copyThreads = 2
    #expect(estimate.nanoseconds(pages: 32, reads: 32, threads: 1) == few)
    let shared = estimate.nanoseconds(pages: 30_000, reads: 30_000, threads: 1)
    #expect(shared < many && shared > many / 2)
  }

  @Test("sending takes what the link was measured to take, and what even a small round takes")
  func sending() {
    var estimate = FreezeEstimate()
    #expect(estimate.sendingNanoseconds(pages: 1000) == 0, "nothing was sent yet")
    // 100 MB/s, with 2048 bytes a page after compression.
    estimate.observeSending(pages: 50_000, bytes: 102_400_000, nanoseconds: 1_024_000_000)
    #expect(estimate.sendingNanoseconds(pages: 50_000) == 1_024_000_000)
    #expect(estimate.sendingNanoseconds(pages: 10_000) > 204_000_000)
    // A round that is too small for a rate shows what is fixed.
    estimate.observeSending(pages: 10, bytes: 20_480, nanoseconds: 5_000_000)
    #expect(estimate.sendingNanoseconds(pages: 10_000) == 204_800_000)
    #expect(estimate.sendingNanoseconds(pages: 100) == 4_096_000)
    // A slower link is heeded.
    estimate.observeSending(pages: 50_000, bytes: 102_400_000, nanoseconds: 4_096_000_000)
    #expect(estimate.sendingNanoseconds(pages: 50_000) > 1_500_000_000)
  }
}
