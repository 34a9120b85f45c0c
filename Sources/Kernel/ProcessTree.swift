internal import Glibc
internal import SystemPackage

/// The processes that descend from one.
///
/// A process whose parent has ended belongs to init, or to whoever asked for that
/// (PR_SET_CHILD_SUBREAPER): it is no descendant any more.
package enum ProcessTree {
  /// A process and its parent.
  package struct Entry: Sendable, Equatable {
    /// Its process id.
    package let pid: Int32
    /// Its parent's process id.
    package let parent: Int32

    /// A process of a tree.
    package init(pid: Int32, parent: Int32) {
      self.pid = pid
      self.parent = parent
    }
  }

  /// Where parents are looked up.
  package enum Source: Sendable {
    /// `/proc/PID/task/TID/children` (CONFIG_PROC_CHILDREN). One that misses a child whose sibling
    /// ends in that instant (proc_tid_children(5)), unless all stand still.
    case children
    /// The parent of every process there is.
    case parents

    /// What this kernel has.
    package static var available: Source {
      do throws(KernelError) {
        _ = try ThisThread.open("children")
        return .children
      } catch { return .parents }
    }
  }

  /// All descendants of process `root`, parents before their children. Those that have ended and were
  /// not reaped are among them; this process of ours is not.
  package static func descendants(of root: Int32, from source: Source = .available)
    throws(KernelError) -> [Entry]
  {
    let parents: [Int32: [Int32]] = source == .parents ? try allChildren() : [:]
    let own = getpid()
    var seen: Set<Int32> = [root, own]
    var found: [Entry] = []
    var queue = [root]
    var next = 0
    while next < queue.count {
      let parent = queue[next]
      next += 1
      let children = source == .parents ? parents[parent] ?? [] : children(of: parent)
      for child in children where seen.insert(child).inserted {
        found.append(Entry(pid: child, parent: parent))
        queue.append(child)
      }
    }
    return found
  }

  /// Empty if the process has ended.
  private static func children(of pid: Int32) -> [Int32] {
    var children: [Int32] = []
    do throws(KernelError) {
      let tasks = try Directory.open("/proc/\(pid)/task", followSymlink: false)
      for thread in try tasks.names() {
        guard let task = try? tasks.directory(thread), let file = try? task.openFile("children"),
          let text = try? readToEnd(file, path: task.join("children"))
        else { continue }
        for word in text.split(separator: UInt8(ascii: " ")) {
          if let child = Int32(String(decoding: word, as: UTF8.self)) { children.append(child) }
        }
      }
    } catch {}
    return children
  }

  private static func allChildren() throws(KernelError) -> [Int32: [Int32]] {
    let processes = try Directory.open("/proc", followSymlink: false)
    var children: [Int32: [Int32]] = [:]
    for name in try processes.names() {
      guard let pid = Int32(name), let directory = try? processes.directory(name),
        let file = try? directory.openFile("stat"),
        let bytes = try? readToEnd(file, path: directory.join("stat")),
        let stat = try? ProcessStat(parsing: bytes)
      else { continue }
      children[stat.parent, default: []].append(pid)
    }
    return children
  }
}
