internal import Kernel

/// Magic numbers and file names of CRIU 4.3's images and of our own record.
///
/// All numbers are little endian. An image is `magic1, magic2, { u32 length, message }*`; only the
/// inventory has a single magic. `pages-N.img` has no magic at all.
enum ImageFormat {
  /// First magic of every image but the inventory and the statistics (CRIU: IMG_COMMON_MAGIC).
  static let common: UInt32 = 0x5456_4319
  /// First magic of `stats-dump` (CRIU: IMG_SERVICE_MAGIC).
  static let service: UInt32 = 0x5510_5940
  /// CRIU: INVENTORY_MAGIC.
  static let inventory: UInt32 = 0x5831_3116
  /// CRIU: PAGEMAP_MAGIC.
  static let pagemap: UInt32 = 0x5608_4025
  /// CRIU: MM_MAGIC.
  static let mm: UInt32 = 0x5749_2820
  /// CRIU: STATS_MAGIC.
  static let statistics: UInt32 = 0x5709_3306
  /// "RMDM", our round record's.
  static let roundRecord: UInt32 = 0x4d44_4d52
  /// "SMDM", our session record's.
  static let sessionRecord: UInt32 = 0x4d44_4d53
  /// The version of our own records.
  static let recordVersion: UInt32 = 1

  /// CRIU's `img_version` for plain pages, and for a chain with compressed ones.
  static let plainVersion: UInt32 = 2
  static let compressedVersion: UInt32 = 3

  static let inventoryName = "inventory.img"
  static let statisticsName = "stats-dump"
  static let parentName = "parent"
  static let sessionName = "memdump-session.img"
  static let partialSuffix = ".partial"

  static func pagemapName(pid: Int32) -> String { "pagemap-\(pid).img" }
  static func pagemapName(sharedObject id: UInt64) -> String { "pagemap-shmem-\(id).img" }
  static func pagesName(_ id: UInt32) -> String { "pages-\(id).img" }
  static func mmName(pid: Int32) -> String { "mm-\(pid).img" }
  static func recordName(pid: Int32) -> String { "memdump-\(pid).img" }

  /// The process that a record's name stands for; nil if it is no record's.
  static func recordPID(_ name: String) -> Int32? {
    guard name.hasPrefix("memdump-"), name.hasSuffix(".img") else { return nil }
    guard let pid = Int32(name.dropFirst(8).dropLast(4)) else { return nil }
    return recordName(pid: pid) == name ? pid : nil
  }

  /// A page as an integer, for buffer arithmetic.
  static let page = Int(pageBytes)
  /// The most pages that the writer puts in one entry with payload.
  static let entryPageLimit = 65536
}
