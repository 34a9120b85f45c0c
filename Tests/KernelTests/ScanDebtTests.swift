import Kernel
import Testing

struct ScanDebtTests {
  private func pages(_ range: Range<UInt64>) -> PageRange {
    PageRange(start: range.lowerBound * pageBytes, end: range.upperBound * pageBytes)
  }

  @Test("what was paid in pieces, and out of order, is settled")
  func settled() {
    let debt = ScanDebt()
    debt.owe(pages(10..<20))
    debt.owe(pages(0..<4))
    debt.owe(pages(2..<6))
    debt.pay(pages(10..<13))
    debt.pay(pages(13..<20))
    debt.pay(pages(0..<8))
    #expect(debt.settle() == nil)
  }

  @Test(
    "a page that was neither stored nor found unreadable is named",
    arguments: [(0..<1, 1), (1..<4, 0), (0..<3, 3), (7..<9, 0)] as [(Range<UInt64>, UInt64)])
  func unpaid(paid: Range<UInt64>, first: UInt64) {
    let debt = ScanDebt()
    debt.owe(pages(0..<4))
    debt.pay(pages(paid))
    #expect(debt.settle()?.start == first * pageBytes)
  }

  @Test("a round's end forgets")
  func forgets() {
    let debt = ScanDebt()
    debt.owe(pages(0..<4))
    #expect(debt.settle() != nil)
    #expect(debt.settle() == nil)
  }

  @Test("a protecting scan owes what it reports as written, a mere look does not")
  func scans() throws {
    let debt = ScanDebt()
    let scanner = PagemapScanner(pagemap: try ThisThread.open("pagemap"), debt: debt)
    let memory = try AnonymousMemory(byteCount: 4 * Int(pageBytes))
    memory.populate(first: memory.byteCount)
    let base = try #require(memory.bytes(at: 0, count: memory.byteCount).baseAddress)
    let range = PageRange(start: UInt64(UInt(bitPattern: base)), pageCount: 4)
    let userfaultfd = try Userfaultfd(owning: Userfaultfd.open(), of: "this process")
    try userfaultfd.register(range)
    try scanner.scan(range, filter: .populated, protect: false) { (_) throws(KernelError) in }
    #expect(debt.settle() == nil)
    try scanner.scan(range, filter: .populated, protect: true) { (_) throws(KernelError) in }
    #expect(debt.settle() == range)
    // Nothing was written since.
    try scanner.scan(range, filter: .populated, protect: true) { (_) throws(KernelError) in }
    #expect(debt.settle() == nil)
  }
}
