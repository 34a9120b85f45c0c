internal import Glibc
internal import Kernel
internal import Predump
internal import Synchronization

/// Takes SIGINT, SIGTERM, SIGHUP and SIGUSR1 on a thread of its own.
///
/// The first asks the dump to stop at the next safe point. The second ends memdump at once: the
/// kernel then lets go of the target and untracks it by itself. SIGUSR1 asks how far the dump is.
final class SignalWatch: Sendable {
  private let first = Atomic<Int32>(0)
  private let cancellation: Cancellation
  private let onFirst: @Sendable () -> Void
  private let onSecond: @Sendable () -> Void
  private let onStatus: @Sendable () -> Void

  /// - Parameters:
  ///   - onFirst: says that the dump is about to stop; called on the watch's thread.
  ///   - onSecond: cleans up the terminal; called on the watch's thread, right before the end.
  ///   - onStatus: says how far the dump is; called on the watch's thread.
  init(
    _ cancellation: Cancellation, onFirst: @escaping @Sendable () -> Void,
    onSecond: @escaping @Sendable () -> Void, onStatus: @escaping @Sendable () -> Void = {}
  ) {
    self.cancellation = cancellation
    self.onFirst = onFirst
    self.onSecond = onSecond
    self.onStatus = onStatus
  }

  /// Blocks the signals in the calling thread, and in the threads that it starts from now on, and
  /// takes them. To be called before any other thread exists.
  func start() throws(KernelError) {
    var set = sigset_t()
    sigemptyset(&set)
    sigaddset(&set, SIGINT)
    sigaddset(&set, SIGTERM)
    sigaddset(&set, SIGUSR1)
    // nohup(1) and its like say that a hang-up is not meant for us.
    var hangUp = sigaction()
    sigaction(SIGHUP, nil, &hangUp)
    let isIgnored = unsafeBitCast(hangUp.__sigaction_handler.sa_handler, to: Int.self) == 1
    if !isIgnored { sigaddset(&set, SIGHUP) }
    pthread_sigmask(SIG_BLOCK, &set, nil)
    let taken = set
    _ = try OSThread(name: "memdump-signals") { self.watch(taken) }
  }

  /// How a command ends that was interrupted.
  var status: ExitStatus { Self.status(first.load(ordering: .acquiring)) }

  private func watch(_ set: sigset_t) {
    // This thread needs no power at all; where there is none to give up, that is as good.
    try? ThisThread.keepCapabilities([])
    while true {
      var set = set
      var number: Int32 = 0
      guard sigwait(&set, &number) == 0 else { continue }
      if number == SIGUSR1 {
        onStatus()
        continue
      }
      let (isFirst, _) = first.compareExchange(
        expected: 0, desired: number, ordering: .acquiringAndReleasing)
      guard isFirst else {
        onSecond()
        _exit(Self.status(number).rawValue)
      }
      cancellation.cancel()
      onFirst()
    }
  }

  private static func status(_ number: Int32) -> ExitStatus {
    switch number {
    case SIGTERM: .terminated
    case SIGHUP: .hungUp
    default: .interrupted
    }
  }
}
