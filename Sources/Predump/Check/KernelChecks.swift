internal import Glibc
internal import Kernel
internal import SystemPackage

/// What the kernel must be able to do, found out by asking it to: distributions carry features to
/// older kernels and build newer ones without them, so no version number says.
enum KernelChecks {
  private static let filtered =
    "let a seccomp filter or security module (of a container, perhaps) allow memdump this call"
  private static let asyncRemedy =
    "use Linux 6.7 or newer, built with CONFIG_PTE_MARKER_UFFD_WP (x86-64)"

  /// Every probe, in the report's order.
  static func run() -> [GroundFinding] {
    var findings = [userfaultfd()]
    findings += features()
    findings.append(pagemapScan())
    findings.append(pidfdGetfd())
    findings.append(inaccessibleMemory())
    findings.append(softDirty())
    let isReady = findings.allSatisfy { $0.failure == nil }
    findings.append(isReady ? selfTest() : selfTestNotRun(findings))
    return findings
  }

  private static func userfaultfd() -> GroundFinding {
    let (id, title) = ("kernel.userfaultfd", "userfaultfd(2)")
    do throws(KernelError) {
      _ = try Userfaultfd.open()
      return .ok(id, title, "available")
    } catch {
      // EINVAL: the call is there, its flag UFFD_USER_MODE_ONLY is not.
      let remedy =
        error.errno == .invalidArgument
        ? "use Linux 5.11 or newer (UFFD_USER_MODE_ONLY)"
        : "use a kernel built with CONFIG_USERFAULTFD"
      return refused(id, title, error, remedy: remedy)
    }
  }

  private static func features() -> [GroundFinding] {
    let async = (id: "kernel.wp-async", title: "asynchronous write protection")
    let markers = (id: "kernel.pte-markers", title: "write-protect markers in page tables")
    let offered: Userfaultfd.Features
    do throws(KernelError) { offered = try Userfaultfd.offeredFeatures() } catch {
      return [async, markers].map { refused($0.id, $0.title, error, remedy: asyncRemedy) }
    }
    var findings: [GroundFinding] = []
    if offered.contains([.protectPageFaults, .asynchronous]) {
      findings.append(.ok(async.id, async.title, "UFFD_FEATURE_WP_ASYNC is offered"))
    } else {
      findings.append(
        .unsupported(
          async.id, async.title, "the kernel does not offer UFFD_FEATURE_WP_ASYNC",
          remedy: asyncRemedy))
    }
    if offered.contains([.protectUnpopulated, .protectHugetlbAndShared]) {
      findings.append(
        .ok(markers.id, markers.title, "WP_UNPOPULATED and WP_HUGETLBFS_SHMEM are offered"))
    } else {
      findings.append(
        .unsupported(
          markers.id, markers.title,
          "the kernel does not offer UFFD_FEATURE_WP_UNPOPULATED and WP_HUGETLBFS_SHMEM",
          remedy: "use a kernel built with CONFIG_PTE_MARKER_UFFD_WP (x86-64)"))
    }
    return findings
  }

  private static func pagemapScan() -> GroundFinding {
    let (id, title) = ("kernel.pagemap-scan", "ioctl(PAGEMAP_SCAN)")
    do throws(KernelError) {
      let scanner = PagemapScanner(pagemap: try ThisThread.open("pagemap"))
      _ = try scanner.isRegistered(0)
      return .ok(id, title, "available")
    } catch {
      return refused(
        id, title, error,
        remedy: "use Linux 6.7 or newer, built with CONFIG_PROC_PAGE_MONITOR")
    }
  }

  private static func pidfdGetfd() -> GroundFinding {
    let (id, title) = ("kernel.pidfd-getfd", "pidfd_getfd(2)")
    do throws(KernelError) {
      let own = try TargetProcess(pid: getpid())
      let pagemap = try ThisThread.open("pagemap")
      _ = try own.copyDescriptor(pagemap.descriptor.number)
      return .ok(id, title, "available")
    } catch {
      return refused(id, title, error, remedy: "use Linux 5.6 or newer")
    }
  }

  private static func inaccessibleMemory() -> GroundFinding {
    let (id, title) = ("kernel.inaccessible-memory", "reading inaccessible memory")
    do throws(KernelError) {
      let isReadable = try InaccessibleMemory.isReadableByAnyone()
      return .ok(id, title, isReadable ? "at any time" : "in the freeze, as a tracer")
    } catch { return refused(id, title, error, remedy: "mount /proc") }
  }

  /// Nothing that a dump needs.
  private static func softDirty() -> GroundFinding {
    let isThere = (try? SoftDirty.isTracked()) ?? false
    return .ok(
      "kernel.soft-dirty", "soft-dirty tracking (optional)",
      isThere ? "CRIU can leave memory out by it" : "none: CRIU leaves memory out in other ways")
  }

  private static func selfTest() -> GroundFinding {
    let (id, title) = ("kernel.tracking-self-test", "self-test of write tracking")
    let results = TrackingSelfTest.run()
    let failed = results.filter { !$0.passed }
    if failed.isEmpty {
      return .ok(id, title, "\(results.count) behaviours are as they must be")
    }
    if let lack = failed.compactMap(\.error).first(where: \.isLack) {
      return lacking(id, title, lack)
    }
    let list = failed.map { "\($0.name) (\($0.detail))" }.joined(separator: "; ")
    return .unsupported(
      id, title, "wrong in \(failed.count) of \(results.count): \(list)",
      remedy: "use a kernel whose PAGEMAP_SCAN works; Linux 6.12, 6.18 and 7.3 were tested")
  }

  private static func selfTestNotRun(_ findings: [GroundFinding]) -> GroundFinding {
    let names = findings.filter { $0.failure != nil }.map(\.item.id)
    return GroundFinding(
      item: CheckReport.Item(
        id: "kernel.tracking-self-test", title: "self-test of write tracking", status: .missing,
        detail: "not run: it needs \(names.joined(separator: ", "))",
        remedy: "see there"),
      failure: findings.compactMap(\.failure).first)
  }

  /// A refused right is a question of permissions; anything else is taken for lack of the feature.
  private static func lacking(_ id: String, _ title: String, _ error: KernelError)
    -> GroundFinding
  {
    .missing(
      id, title, "\(error)", remedy: "let memdump have more memory or descriptors (ulimit, cgroup)",
      failure: .kernel(error))
  }

  private static func refused(
    _ id: String, _ title: String, _ error: KernelError, remedy: String
  ) -> GroundFinding {
    if error.isLack { return lacking(id, title, error) }
    return error.isPermission
      ? .forbidden(id, title, "\(error)", remedy: filtered)
      : .unsupported(id, title, "\(error)", remedy: remedy)
  }
}
