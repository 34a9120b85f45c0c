internal import Images
internal import Kernel

/// What the source writes down before it lets the destination's copy run: who is held here, and who
/// knows what became of the copy.
///
///     destination tcp:there:7000
///     identity 8f2c... 91ab...
///     memdump 4711 123456
///     criu 4720 123489
///     process 1234 98765
struct MoveNote: Equatable {
  static let fileName = "memdump-move"

  var destination: String
  var identity: MoveIdentity
  /// memdump itself.
  var author: HeldProcesses.Name
  /// The CRIU that holds the processes.
  var holder: HeldProcesses.Name
  var processes: [HeldProcesses.Name]

  /// Writes the note into `directory`.
  func write(in directory: borrowing Directory) throws(KernelError) {
    let lines =
      [
        "destination \(destination)",
        "identity \(String(identity.high, radix: 16)) \(String(identity.low, radix: 16))",
        "memdump \(author.pid) \(author.startTicks)", "criu \(holder.pid) \(holder.startTicks)",
      ] + processes.map { "process \($0.pid) \($0.startTicks)" }
    let file = File(
      try directory.createFile(Self.fileName), path: directory.join(Self.fileName))
    try Array((lines.joined(separator: "\n") + "\n").utf8).withUnsafeBufferPointer {
      bytes throws(KernelError) in try file.write(UnsafeRawBufferPointer(bytes))
    }
  }

  /// Reads the note in `directory`.
  ///
  /// - Throws: `.peer` if it is none.
  static func read(from directory: borrowing Directory) throws -> MoveNote {
    let path = directory.join(fileName)
    let text = String(
      decoding: try readToEnd(directory.openFile(fileName), path: path), as: UTF8.self)
    var note = MoveNote(
      destination: "", identity: MoveIdentity(high: 0, low: 0),
      author: HeldProcesses.Name(pid: 0, startTicks: 0),
      holder: HeldProcesses.Name(pid: 0, startTicks: 0), processes: [])
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 2).map(String.init)
      switch (words.first, words.count) {
      case ("destination", 2): note.destination = words[1]
      case ("identity", 3):
        guard let high = UInt64(words[1], radix: 16), let low = UInt64(words[2], radix: 16) else {
          continue
        }
        note.identity = MoveIdentity(high: high, low: low)
      case ("memdump", 3): if let name = Self.name(words) { note.author = name }
      case ("criu", 3): if let name = Self.name(words) { note.holder = name }
      case ("process", 3): if let name = Self.name(words) { note.processes.append(name) }
      default: break
      }
    }
    guard !note.processes.isEmpty, note.author.pid > 0, Endpoint(note.destination) != nil else {
      throw MigrationError.peer("\(path) is no note of memdump's")
    }
    return note
  }

  private static func name(_ words: [String]) -> HeldProcesses.Name? {
    guard let pid = Int32(words[1]), let ticks = UInt64(words[2]) else { return nil }
    return HeldProcesses.Name(pid: pid, startTicks: ticks)
  }
}
