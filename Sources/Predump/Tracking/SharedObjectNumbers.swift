/// Numbers for shared memory objects, in the order in which they are met. An object keeps its number
/// for the whole run, and has the same one in every process that maps it.
///
/// One for all processes of a dump, and for the engine's thread alone.
final class SharedObjectNumbers {
  private var numbers: [Key: UInt64] = [:]

  /// The kernel gives a segment of SysV shared memory its id as inode number, on the same device on
  /// which it numbers memfds and shared anonymous memory (kernel: newseg): the kind tells them apart.
  private struct Key: Hashable {
    var device: UInt64
    var inode: UInt64
    var isSysV: Bool
  }

  /// The number of an object, from 1 on.
  func number(device: UInt64, inode: UInt64, isSysV: Bool) -> UInt64 {
    let key = Key(device: device, inode: inode, isSysV: isSysV)
    let number = numbers[key] ?? UInt64(numbers.count + 1)
    numbers[key] = number
    return number
  }
}
