internal import Glibc
internal import Images
internal import Kernel
internal import Tracee

/// Getting hold of a target, again and again.
enum AttachBenchmark {
  struct Result: Encodable {
    let benchmark = "attach"
    let totalNs: Double
    let stoppedNs: Double
    let totalSamples: Samples
    let stoppedSamples: Samples
  }

  static func run(_ pid: Int32, _ repetitions: Int) throws -> Result {
    let target = try TargetProcess(pid: pid)
    var (total, stopped) = (Samples(), Samples())
    for _ in 0..<repetitions {
      let began = MonotonicClock.now
      let outcome = try UserfaultfdInjection.inject(into: target)
      total.add(Double(MonotonicClock.now - began))
      stopped.add(Double(outcome.stoppedNanoseconds))
      _ = outcome.take()
      MonotonicClock.pause(nanoseconds: 20_000_000)
    }
    return Result(
      totalNs: total.median, stoppedNs: stopped.median, totalSamples: total,
      stoppedSamples: stopped)
  }
}

/// Checking images, as `memdump restore-check` does.
enum VerifyBenchmark {
  struct Result: Encodable {
    let benchmark = "verify"
    let verdict: String
    let memoryBytes: UInt64
    let payloadBytes: UInt64
    let gbPerSecond: Double
    /// By processor time, of all threads.
    let gbPerCoreSecond: Double
    let peakRssBytes: Int
    let samples: Samples
  }

  static func run(_ directory: String, _ repetitions: Int) -> Result {
    var (rates, coreRates) = (Samples(), Samples())
    var verdict = ""
    var (memory, payload): (UInt64, UInt64) = (0, 0)
    for _ in 0..<repetitions {
      let processorTime = usage().nanoseconds
      let cost = measure {
        let report = ChainVerifier.verify(directory)
        verdict = report.verdict.rawValue
        memory = report.rounds.reduce(0) { $0 + $1.pagesPresent } * pageBytes
        payload = report.rounds.reduce(0) { $0 + $1.payloadBytes }
      }
      rates.add(cost.gigabytesPerSecond(Int(memory)))
      coreRates.add(Double(memory) / max(usage().nanoseconds - processorTime, 1))
    }
    return Result(
      verdict: verdict, memoryBytes: memory, payloadBytes: payload, gbPerSecond: rates.median,
      gbPerCoreSecond: coreRates.median, peakRssBytes: usage().peakBytes, samples: rates)
  }

  private static func usage() -> (nanoseconds: Double, peakBytes: Int) {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    let times = [usage.ru_utime, usage.ru_stime]
    let seconds = times.reduce(0.0) { $0 + Double($1.tv_sec) + Double($1.tv_usec) * 1e-6 }
    return (seconds * 1e9, usage.ru_maxrss * 1024)
  }
}
