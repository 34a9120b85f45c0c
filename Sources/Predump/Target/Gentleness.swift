public import Kernel

/// How memdump's own threads stand against everybody else's.
public struct Gentleness: Sendable {
  /// The nice value, -20 to 19. Nil leaves it as it is, but that compression in live rounds leaves
  /// the processor to whoever else wants it, as long as it gets on at all (`YieldingWork`).
  public var nice: Int32?
  /// The disk priority; nil leaves it as it is.
  public var io: IOPriority?

  /// As memdump was started.
  public init() {}

  /// For the calling thread, and those that it starts.
  func apply() throws(PredumpError) {
    do throws(KernelError) {
      if let nice { try ThisThread.setNice(nice) }
      if let io { try ThisThread.setIOPriority(io) }
    } catch {
      throw .permission("\(error); a lower nice value than memdump's own takes CAP_SYS_NICE")
    }
  }
}
