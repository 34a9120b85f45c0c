import Foundation

/// CRIU's image tool. `MEMDUMP_CRIU_ROOT` names a directory with `bin/crit`; scripts/test.sh makes
/// one.
enum Crit {
  static var path: String? {
    ProcessInfo.processInfo.environment["MEMDUMP_CRIU_ROOT"].map { $0 + "/bin/crit" }
  }
}
